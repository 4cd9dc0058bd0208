package server

import (
	"context"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/clusterdns"
	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/registration"
)

// nodeRuntime is what runs containers, as the node's components see it: the
// embedded runtime, or another program's behind its socket. It is all that the
// CRI's interfaces don't tell.
type nodeRuntime interface {
	Runtime() internalapi.RuntimeService
	Images() internalapi.ImageManagerService
	// start starts what the runtime itself needs running. Where it can come and go,
	// reg is told.
	start(ctx context.Context, s *serve, reg *registration.Registration) error
	// await waits until the Node is Ready, for as long as that makes sense.
	await(ctx context.Context, s *serve) error
	// allContainers lists all that may use an image, also those of others.
	allContainers(ctx context.Context) ([]*runtimeapi.Container, error)
	// imageDir is a directory on the file system that images are on.
	imageDir(dir *datadir.Dir) (string, error)
	imageCommands() control.Images
	// podCIDRs are the ranges of the pods' addresses, none where others give them.
	podCIDRs() []string
	// dns says whom pods ask for names.
	dns() crispec.DNS
	cgroupV2() bool
	// limitsSwap says whether, on version 2, swap can be limited.
	limitsSwap() bool
	// close closes what this process holds; containers go on.
	close() error
}

// openNodeRuntime opens the runtime that the options name, unless pods of this
// data directory are in the other one: nobody would look after those.
func (s *serve) openNodeRuntime(ctx context.Context, c runtimeConfig) (nodeRuntime, error) {
	recorded, err := recordedEndpoints(s.dir)
	if err != nil {
		return nil, err
	}
	if want := s.options.endpoints(); want != (endpoints{}) {
		r, err := openRemote(ctx, want, recorded, c)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	if recorded != (endpoints{}) {
		return nil, recorded.heldError(s.dir)
	}
	c.programs = FindPrograms(s.options)
	if err := c.programs.serve(s.options.NativeLauncher); err != nil {
		return nil, err
	}
	r, err := openRuntime(ctx, c)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Runtime implements nodeRuntime.
func (r *containerRuntime) Runtime() internalapi.RuntimeService { return r.service }

// Images implements nodeRuntime.
func (r *containerRuntime) Images() internalapi.ImageManagerService { return r.store.Service() }

func (r *containerRuntime) start(ctx context.Context, s *serve, _ *registration.Registration) error {
	r.tell(s.stderr)
	s.group.Start(ctx, "pod network", r.network.Run)
	s.group.Start(ctx, "container runtime", r.service.Run)
	if r.api != nil {
		s.api.AddListener(r.api)
	}
	if r.names == nil {
		return nil
	}
	core := s.api.Informers().Core().V1()
	names, err := clusterdns.New(clusterdns.Config{
		Services: core.Services(),
		Pods:     core.Pods(),
		Sockets:  r.names,
		PodRange: r.network.CIDR(),
		Routed:   r.apiAddr,
	})
	if err != nil {
		return err
	}
	s.group.Start(ctx, "names", names.Run)
	return nil
}

func (r *containerRuntime) await(ctx context.Context, s *serve) error {
	return s.group.Await(ctx, s.nodeReady)
}

func (r *containerRuntime) allContainers(ctx context.Context) ([]*runtimeapi.Container, error) {
	return r.service.ListContainers(ctx, nil)
}

func (r *containerRuntime) imageDir(dir *datadir.Dir) (string, error) { return dir.Path("images"), nil }

func (r *containerRuntime) imageCommands() control.Images { return &imageCommands{r.store} }

func (r *containerRuntime) podCIDRs() []string { return []string{r.network.CIDR().String()} }

func (r *containerRuntime) dns() crispec.DNS {
	dns := crispec.DNS{ClusterDomain: clusterdns.Domain}
	if r.names != nil {
		dns.ClusterDNS = []string{r.names.Addr().Addr().String()}
	}
	return dns
}

func (r *containerRuntime) cgroupV2() bool { return r.cgroups.V2() }

func (r *containerRuntime) limitsSwap() bool { return r.cgroups.LimitsSwap() }
