package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
	"k8s.io/kubernetes/pkg/security/apparmor"

	"errand.dev/errand/internal/binder"
	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/node"
	"errand.dev/errand/internal/node/eviction"
	"errand.dev/errand/internal/node/imagegc"
	"errand.dev/errand/internal/node/keptlogs"
	"errand.dev/errand/internal/node/podserver"
	"errand.dev/errand/internal/node/registration"
	"errand.dev/errand/internal/version"
)

// opening is a runtime that is being opened while the API comes up.
type opening struct {
	done    chan struct{}
	runtime nodeRuntime
	err     error

	// networkUp is closed once apiAddr is known, unless the runtime fails before.
	networkUp chan struct{}
	apiAddr   netip.Addr
}

// beginRuntime opens the runtime in the background, or nothing without a node. The API listens on api.
func (s *serve) beginRuntime(ctx context.Context, api net.Addr) *opening {
	o := &opening{done: make(chan struct{}), networkUp: make(chan struct{})}
	if !s.options.Node {
		close(o.done)
		return o
	}
	go func() {
		defer close(o.done)
		c := runtimeConfig{options: s.options, dir: s.dir, names: s.names}
		if s.options.serviceHere() {
			c.api = api.(*net.TCPAddr)
			c.networkUp = func(m *network.Manager) {
				o.apiAddr = m.APIAddr()
				close(o.networkUp)
			}
		}
		o.runtime, o.err = s.openNodeRuntime(ctx, c)
	}()
	return o
}

// errNoRuntime says that the runtime couldn't be opened, which itself says why.
var errNoRuntime = errors.New("there is no container runtime")

// serviceAddress is where pods reach the API, as soon as there is their network.
func (o *opening) serviceAddress(ctx context.Context) (netip.Addr, error) {
	select {
	case <-o.networkUp:
		return o.apiAddr, nil
	case <-o.done:
	case <-ctx.Done():
		return netip.Addr{}, ctx.Err()
	}
	select {
	case <-o.networkUp: // both were ready
		return o.apiAddr, nil
	default:
		return netip.Addr{}, errNoRuntime
	}
}

// discard waits for the opening and closes what came of it.
func (o *opening) discard() error {
	<-o.done
	if o.runtime == nil {
		return o.err
	}
	return errors.Join(o.err, o.runtime.close())
}

// startNode starts what makes this machine a node: the runtime, the binder, the
// agent, the Node object. It returns nil at once without a node.
func (s *serve) startNode(ctx context.Context, o *opening) error {
	<-o.done
	if o.err != nil || o.runtime == nil {
		return o.err
	}
	s.runtime = o.runtime
	if err := s.nodeName.retire(ctx, s.api.Client(), len(s.options.Etcd.Servers) == 0); err != nil {
		return err
	}
	client, err := s.clientAs(nodeUser(s.nodeName.current))
	if err != nil {
		return err
	}
	facts, err := registration.LinuxHost(s.dir.Root()).Facts()
	if err != nil {
		return fmt.Errorf("read the machine's size: %w", err)
	}
	records, err := s.openPullRecords(ctx)
	if err != nil {
		return err
	}
	collector, err := s.newImageCollector(ctx, client, records)
	if err != nil {
		return err
	}
	evictor, err := s.newEviction(ctx, client, collector, facts.Memory)
	if err != nil {
		return err
	}
	reg, err := s.newRegistration(ctx, client, evictor)
	if err != nil {
		return err
	}
	if err := s.runtime.start(ctx, s, reg); err != nil {
		return err
	}
	if err := s.startControl(ctx, collector); err != nil {
		return err
	}
	kept, err := s.newLogKeeper()
	if err != nil {
		return err
	}
	agent, err := s.newAgent(ctx, client, nodeParts{reg, collector, evictor, kept, records})
	if err != nil {
		return err
	}
	if err := agent.Metrics().Register(ownMetrics{}); err != nil {
		return fmt.Errorf("the node's metrics: %w", err)
	}
	pods, err := podserver.New(podserver.Config{
		Socket:   s.podServerSocket(),
		NodeName: s.nodeName.current,
		Pods:     agent,
		Runtime:  s.runtime.Runtime(),
		LogDir:   s.logDir(),
		KeptLogs: agent,
		Metrics: podserver.Metrics{
			Node:   func(r metrics.KubeRegistry) error { return agent.Metrics().Register(r) },
			Probes: func(r metrics.KubeRegistry) error { return agent.RegisterProbes(r) },
		},
	})
	if err != nil {
		return err
	}
	bind, err := s.newBinder(ctx)
	if err != nil {
		return err
	}
	s.group.Start(ctx, "image collector", collector.Run)
	s.group.Start(ctx, "kept logs", kept.Run)
	s.group.Start(ctx, "node agent", agent.Run)
	s.group.Start(ctx, "eviction", func(ctx context.Context) error { return evictor.Run(ctx, agent, reg.Announce) })
	s.group.Start(ctx, "pod server", pods.Run)
	s.group.Start(ctx, "node registration", reg.Run)
	s.group.Start(ctx, "binder", bind.Run)
	s.nodeReady = reg.Ready()
	return nil
}

func (s *serve) startControl(ctx context.Context, collector *imagegc.Collector) error {
	images := recordedCommands{s.runtime.imageCommands(), collector}
	server, err := control.Listen(s.names.RuntimeDir, images, traceCommand{s.traces})
	if err != nil {
		return err
	}
	s.group.Start(ctx, "control socket", server.Run)
	return nil
}

func (s *serve) newBinder(ctx context.Context) (*binder.Binder, error) {
	client, err := s.clientAs(schedulerUser)
	if err != nil {
		return nil, err
	}
	return binder.New(binder.Config{
		Client:    client,
		Informers: s.api.Informers(),
		Recorder:  s.recorder(ctx, client, "default-scheduler", ""),
		Traces:    s.traces,
	})
}

func (s *serve) newRegistration(ctx context.Context, client kubernetes.Interface, evictor *eviction.Manager) (*registration.Registration, error) {
	return registration.New(registration.Config{
		Client:   client,
		Nodes:    s.api.Informers().Core().V1().Nodes(),
		NodeName: s.nodeName.current,
		Runtime:  s.runtime.Runtime(),
		Images:   s.runtime.Images(),
		Host:     registration.LinuxHost(s.dir.Root()),
		Under:    evictor.Under,
		Recorder: s.recorder(ctx, client, "kubelet", s.nodeName.current),
		PodCIDRs: s.runtime.podCIDRs(),
		Version:  version.Node(),
		MaxPods:  int64(s.options.MaxPods),
	})
}

func (s *serve) newLogKeeper() (*keptlogs.Keeper, error) {
	size, err := s.options.keptLogsMaxSize()
	if err != nil {
		return nil, err
	}
	return keptlogs.New(keptlogs.Config{Dir: s.dir.Path("logs", "kept"), MaxSize: size, Jobs: s.api.Informers().Batch().V1().Jobs()})
}

// nodeParts are what the agent works with.
type nodeParts struct {
	reg       *registration.Registration
	collector *imagegc.Collector
	evictor   *eviction.Manager
	kept      *keptlogs.Keeper
	records   pullmanager.ImagePullManager
}

func (s *serve) newAgent(ctx context.Context, client kubernetes.Interface, p nodeParts) (*node.Node, error) {
	drained, err := drainedContainers(s.dir, s.nodeName.first)
	if err != nil {
		return nil, err
	}
	userIDs, err := s.options.podUserIDs()
	if err != nil {
		return nil, err
	}
	return node.New(node.Config{
		Client:         client,
		Informers:      s.api.Informers(),
		NodeName:       s.nodeName.current,
		Runtime:        p.collector.Runtime(),
		Images:         p.collector.Images(),
		PullRecords:    p.records,
		RootDir:        s.dir.Path("pods"),
		MemoryDir:      filepath.Join(s.names.RuntimeDir, "pods"),
		LogDir:         s.logDir(),
		KeptLogs:       p.kept,
		CgroupParent:   s.names.CgroupParent,
		HostIPs:        []string{p.reg.NodeIP().String()},
		Allocatable:    p.reg.Allocatable(),
		MemoryCapacity: p.reg.MemoryCapacity(),
		CgroupV2:       s.runtime.cgroupV2(),
		LimitsSwap:     s.runtime.limitsSwap(),
		DNS:            s.runtime.dns(),
		SeccompDefault: true,
		AppArmor:       apparmor.NewValidator().ValidateHost() == nil,
		UserIDs:        userIDs,
		Admit:          p.evictor.Admit,
		Drained:        drained,
		Services:       s.api.Informers().Core().V1().Services().Lister(),
		Recorder:       s.recorder(ctx, client, "kubelet", s.nodeName.current),
		Traces:         s.traces,
	})
}

// awaitNode waits until the Node is Ready in the API. Where the store is full
// it can't be: then there is no waiting for it, because what makes room is the
// user, who deletes objects.
func (s *serve) awaitNode(ctx context.Context) error {
	if s.nodeReady == nil {
		return nil
	}
	if err := s.api.CheckSpace(ctx); err != nil {
		fmt.Fprintf(s.stderr, "errand: no pod will be run until there is room: %v\n", err)
		return nil
	}
	return s.runtime.await(ctx, s)
}

// ownMetrics are those of this process, at the API server's /metrics.
type ownMetrics struct{}

// Register implements node.Registry.
func (ownMetrics) Register(m metrics.Registerable) error { return legacyregistry.Register(m) }

// CustomRegister implements node.Registry.
func (ownMetrics) CustomRegister(c metrics.StableCollector) error {
	return legacyregistry.CustomRegister(c)
}

// podServerSocket is where the API server finds logs and the like.
func (s *serve) podServerSocket() string { return filepath.Join(s.names.RuntimeDir, "pods.sock") }

// logDir holds the containers' logs.
func (s *serve) logDir() string { return s.dir.Path("logs", "pods") }

func unixDialer(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}
