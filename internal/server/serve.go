package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/apiserver/etcd"
	"errand.dev/errand/internal/controllers"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/lifecycle"
	"errand.dev/errand/internal/localvolumes"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/version"
)

// stopTimeout is how long one component may take to end. All of them together
// take well under 2 s; what takes longer hangs.
const stopTimeout = 5 * time.Second

// Run serves until ctx ends, then stops everything but the containers, and
// returns nil. It returns an error where it can't start or can't go on; what
// the user should know meanwhile it prints to stderr.
func Run(ctx context.Context, o Options, stderr io.Writer) error {
	began := time.Now()
	dir, err := datadir.Open(o.DataDir)
	if err != nil {
		return err
	}
	names, err := instance.For(dir.Root())
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	node, err := chooseNodeName(o, dir)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	manager, err := takeNotifier()
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	s := &serve{options: o, dir: dir, names: names, nodeName: node, stderr: stderr, group: lifecycle.NewGroup(stopTimeout)}
	err = s.start(ctx)
	if err == nil {
		s.announce(ctx, manager, time.Since(began))
		if err := settle(); err != nil {
			klog.FromContext(ctx).Error(err, "More memory than needed stays in use")
		}
		err = s.group.Wait(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil // asked to stop before it was ready
	}
	manager.tell(ctx, daemon.SdNotifyStopping)
	err = errors.Join(err, s.group.Stop(), s.close())
	if abandoned := (*abandonedError)(nil); errors.As(err, &abandoned) {
		err = errors.Join(err, removeRuntimeDir(names))
	}
	leaveRuntimeDir(names)
	return errors.Join(err, dir.Close())
}

// serve is one run: what its components share.
type serve struct {
	options Options
	dir     *datadir.Dir
	names   instance.Names
	group   *lifecycle.Group
	stderr  io.Writer

	// nodeName is the Node's name, also where it is not this process's.
	nodeName nodeName

	api     *apiserver.Server
	runtime nodeRuntime // nil without a node
	// nodeReady is closed once the Node is Ready; nil without a node.
	nodeReady    <-chan struct{}
	broadcasters []record.EventBroadcaster
	// traces is where the pods' time goes; nil without a node.
	traces *podtrace.Recorder
}

// start starts every component, each once those it leans on are ready. This is
// the list of them.
func (s *serve) start(ctx context.Context) error {
	if err := makeRuntimeDir(s.names.RuntimeDir, s.options.Node); err != nil {
		return err
	}
	// What most often goes wrong comes before anything is put on the host.
	listener, err := listen(ctx, s.options.Listen, s.dir)
	if err != nil {
		return err
	}
	runtime := s.beginRuntime(ctx, listener.Addr()) // meanwhile the API comes up
	if err := s.startAPI(ctx, listener, runtime); err != nil {
		if errors.Is(err, errNoRuntime) {
			return runtime.discard()
		}
		return errors.Join(err, runtime.discard())
	}
	if err := s.group.Await(ctx, s.api.Ready()); err != nil {
		return errors.Join(err, runtime.discard())
	}
	if err := s.startTracing(ctx); err != nil {
		return errors.Join(err, runtime.discard())
	}
	if err := s.startNode(ctx, runtime); err != nil {
		return err
	}
	if err := s.startEngine(ctx); err != nil {
		return err
	}
	if err := s.startControllers(ctx); err != nil {
		return err
	}
	return s.awaitNode(ctx)
}

func (s *serve) startAPI(ctx context.Context, listener net.Listener, runtime *opening) error {
	cfg := apiserver.Config{
		DataDir:    s.dir.Root(),
		RuntimeDir: s.names.RuntimeDir,
		Listen:     s.options.Listen,
		Listener:   listener,
		Kubeconfig: s.options.Kubeconfig,
		Etcd: etcd.External{
			Endpoints: s.options.Etcd.Servers,
			CAFile:    s.options.Etcd.CAFile,
			CertFile:  s.options.Etcd.CertFile,
			KeyFile:   s.options.Etcd.KeyFile,
		},
		EventTTL: s.options.EventTTL,
		Version:  version.Get().Version,
		PodNames: s.options.Node && s.options.namesHere(),
	}
	if s.options.Node {
		cfg.NodeName = s.nodeName.current
		cfg.NodeDialer = unixDialer(s.podServerSocket())
		cfg.Provisioner = localvolumes.Provisioner
		if s.options.serviceHere() {
			cfg.ServiceAddress = runtime.serviceAddress
		}
	}
	api, err := apiserver.New(ctx, cfg)
	if err != nil {
		return err
	}
	s.api = api
	s.group.Start(ctx, "API server", api.Run)
	return nil
}

func (s *serve) startControllers(ctx context.Context) error {
	cfg := controllers.Config{
		ClientFor: s.controllerClient,
		Informers: s.api.Informers(),
		REST:      s.api.DirectConfig(),
		RootCA:    s.api.CA(),
		Nodes:     s.options.Node,

		TerminatedPodGCThreshold: s.options.TerminatedPodGCThreshold,
	}
	if s.options.Node {
		cfg.VolumesDir = s.dir.Path("volumes")
	}
	set, err := controllers.New(ctx, cfg)
	if err != nil {
		return err
	}
	s.group.Start(ctx, "controllers", func(ctx context.Context) error {
		s.api.Informers().StartWithContext(ctx)
		return set.Run(ctx)
	})
	return nil
}

// close closes what the components shared, after they have ended.
func (s *serve) close() error {
	for _, b := range s.broadcasters {
		b.Shutdown()
	}
	if s.runtime == nil {
		return nil
	}
	return s.runtime.close()
}

// announce tells everyone who waits that errand is ready.
func (s *serve) announce(ctx context.Context, manager notifier, took time.Duration) {
	fmt.Fprintf(s.stderr, "errand is ready after %d ms: %s\n", took.Milliseconds(), s.api.URL())
	fmt.Fprintf(s.stderr, "  export KUBECONFIG=%s\n", s.kubeconfig())
	manager.tell(ctx, daemon.SdNotifyReady)
}

func (s *serve) kubeconfig() string {
	if s.options.Kubeconfig != "" {
		if abs, err := filepath.Abs(s.options.Kubeconfig); err == nil {
			return abs
		}
	}
	return s.dir.Path("kubeconfig")
}
