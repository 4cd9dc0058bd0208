package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/clusterdns"
	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/criclient"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/logrotation"
	"errand.dev/errand/internal/node/registration"
)

// remotePatience is how long errand's readiness waits for a Node whose runtime,
// another program's, isn't ready. The Node becomes Ready whenever that does.
const remotePatience = 10 * time.Second

// remoteRuntime is another program's runtime.
type remoteRuntime struct {
	client  *criclient.Client
	cgroups *cgroups.Tree
	changed func()

	mu        sync.Mutex
	imagesDir string // once the runtime has told it
}

// openRemote makes the client, which connects only once it is started.
func openRemote(ctx context.Context, want, recorded endpoints, c runtimeConfig) (*remoteRuntime, error) {
	dir, names := c.dir, c.names
	if recorded == (endpoints{}) {
		if err := noneEmbedded(ctx, dir, names); err != nil {
			return nil, err
		}
	} else if recorded.Runtime != want.Runtime {
		return nil, recorded.heldError(dir)
	}
	r := &remoteRuntime{changed: func() {}}
	var err error
	if r.cgroups, err = cgroups.Open(cgroupRoot); err != nil {
		return nil, err
	}
	r.cgroups.LimitPids(max(c.options.PodMaxPids, 0))
	r.client, err = criclient.New(criclient.Config{
		Endpoint: want.Runtime, ImageEndpoint: want.Images, Owner: names.ID, Cgroups: r.cgroups, Changed: func() { r.changed() },
	})
	if err != nil {
		return nil, err
	}
	return r, want.record(dir)
}

// noneEmbedded is an error where the embedded runtime has run pods of this data
// directory, and nobody has drained them.
func noneEmbedded(ctx context.Context, dir *datadir.Dir, names instance.Names) error {
	remains, err := findRemains(ctx, dir.Root(), names)
	if err != nil {
		return err
	}
	remains.runtimeDir = false // this process's
	if found := remains.found(); len(found) > 0 {
		return fmt.Errorf("pods of data directory %s are in errand's own runtime, which has left: %s. End them with errand drain --data-dir %s, then start with --container-runtime-endpoint again",
			dir.Root(), strings.Join(found, "; "), dir.Root())
	}
	return nil
}

// Runtime implements nodeRuntime.
func (r *remoteRuntime) Runtime() internalapi.RuntimeService { return r.client.Runtime() }

// Images implements nodeRuntime.
func (r *remoteRuntime) Images() internalapi.ImageManagerService { return r.client.Images() }

func (r *remoteRuntime) start(ctx context.Context, s *serve, reg *registration.Registration) error {
	maxSize, err := s.options.logMaxSize()
	if err != nil {
		return err
	}
	rotator, err := logrotation.New(logrotation.Config{Runtime: r.client.Runtime(), MaxSize: maxSize, MaxFiles: s.options.ContainerLogMaxFiles})
	if err != nil {
		return err
	}
	if s.options.ClusterDNS {
		fmt.Fprintln(s.stderr, "errand: pods ask the host's resolvers, and know no names of Services: errand answers them only on its own runtime's network")
	}
	if s.options.KubernetesService {
		fmt.Fprintln(s.stderr, "errand: pods don't reach the API: errand lets them only on its own runtime's network")
	}
	r.changed = reg.Recheck
	s.group.Start(ctx, "connection to the container runtime", r.client.Run)
	s.group.Start(ctx, "log rotation", rotator.Run)
	// What is started next would only complain.
	patient, cancel := context.WithTimeout(ctx, remotePatience)
	defer cancel()
	if err := s.group.Await(patient, r.client.Settled()); patient.Err() == nil || ctx.Err() != nil {
		return err
	}
	return nil
}

func (r *remoteRuntime) await(ctx context.Context, s *serve) error {
	var err error
	if r.client.Err() == nil {
		patient, cancel := context.WithTimeout(ctx, remotePatience)
		defer cancel()
		err = s.group.Await(patient, s.nodeReady)
	}
	if ctx.Err() != nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if why := r.notReady(s); why != "" {
		fmt.Fprintf(s.stderr, "errand: no pod will be run until the container runtime is ready: %s\n", why)
	}
	return nil
}

// notReady says why the Node isn't Ready, if it isn't.
func (r *remoteRuntime) notReady(s *serve) string {
	if err := r.client.Err(); err != nil {
		return err.Error()
	}
	select {
	case <-s.nodeReady:
		return ""
	default:
	}
	node, err := s.api.Informers().Core().V1().Nodes().Lister().Get(s.nodeName.current)
	if err != nil {
		return err.Error()
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Message
		}
	}
	return "it has said nothing yet"
}

func (r *remoteRuntime) allContainers(ctx context.Context) ([]*runtimeapi.Container, error) {
	return r.client.AllContainers(ctx)
}

// imageDir is where the runtime says that it keeps images.
func (r *remoteRuntime) imageDir(*datadir.Dir) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.imagesDir != "" {
		return r.imagesDir, nil
	}
	info, err := r.client.Images().ImageFsInfo(context.Background()) // has a timeout of its own
	if err != nil {
		return "", fmt.Errorf("ask the container runtime where images are: %w", err)
	}
	if len(info.GetImageFilesystems()) == 0 {
		return "", errors.New("the container runtime doesn't say where images are")
	}
	// The first is the one that new images go to.
	r.imagesDir = info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	return r.imagesDir, nil
}

func (r *remoteRuntime) imageCommands() control.Images { return &remoteImages{r.client.Images()} }

func (r *remoteRuntime) podCIDRs() []string { return nil }

func (r *remoteRuntime) dns() crispec.DNS { return crispec.DNS{ClusterDomain: clusterdns.Domain} }

func (r *remoteRuntime) cgroupV2() bool { return r.cgroups.V2() }

func (r *remoteRuntime) limitsSwap() bool { return r.cgroups.LimitsSwap() }

func (r *remoteRuntime) close() error { return nil } // the connection ended with its Run
