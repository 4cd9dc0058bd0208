// Package podserver is the node's HTTP server for what the API server proxies
// to a node: logs, exec, attach, port forwarding, usage and metrics, spoken as the
// kubelet does.
//
// It listens on a unix socket that only its owner may open; there is no other
// access control, and none is needed: the API server has authenticated and
// authorised whoever it forwards. It reads logs itself, from the files that the
// runtime writes in the CRI's format; the other streams it joins to the runtime's
// streaming server, whose one-time URLs it asks for. It changes nothing and knows
// pods through the Pods interface only.
package podserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/node/keptlogs"
)

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 10 * time.Second

// Pods is the node's pods. Its methods may be called concurrently; callers
// don't change what they return.
type Pods interface {
	// Pod returns a pod of this node with its latest status, false if there is none.
	Pod(namespace, name string) (*v1.Pod, bool)
	// Pods returns all pods of this node.
	Pods() []*v1.Pod
}

// KeptLogs are logs of Jobs' pods that aren't there any more, and of runs of
// containers that were followed by others. Its methods may be called concurrently.
type KeptLogs interface {
	// KeptLogs returns what is kept of all Jobs of that name.
	KeptLogs(ctx context.Context, namespace, job string) ([]keptlogs.Run, error)
	// OpenKeptLog opens a log, in the CRI's format; fs.ErrNotExist if it isn't kept.
	OpenKeptLog(ctx context.Context, namespace string, pod types.UID, container string, restartCount int32) (io.ReadCloser, error)
}

// Runtime is what is asked of the container runtime; the CRI's RuntimeService has it.
type Runtime interface {
	ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error)
	Exec(ctx context.Context, request *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	Attach(ctx context.Context, request *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
	GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error
}

// Config is what a Server needs. All fields but KeptLogs, Machine, Metrics and Clock
// must be set.
type Config struct {
	// Socket is the path of the unix socket, at most 107 bytes. A socket that an
	// earlier server left is replaced.
	Socket string
	// NodeName is the Node's.
	NodeName string
	Pods     Pods
	Runtime  Runtime
	// KeptLogs, if set, are served besides those of the pods.
	KeptLogs KeptLogs
	// Machine defaults to LinuxMachine.
	Machine Machine
	// Metrics are those to be served besides usage.
	Metrics Metrics
	// LogDir is the directory that all containers' logs lie below. A log that
	// leads out of it, as a link that a container with access to the host may have
	// put there, is not read.
	LogDir string
	// Clock defaults to the real one.
	Clock clock.Clock
}

func (c *Config) validate() error {
	var errs []error
	for _, f := range []struct {
		name    string
		missing bool
	}{{"Socket", c.Socket == ""}, {"NodeName", c.NodeName == ""}, {"Pods", c.Pods == nil}, {"Runtime", c.Runtime == nil}, {"LogDir", c.LogDir == ""}} {
		if f.missing {
			errs = append(errs, fmt.Errorf("%s is not set", f.name))
		}
	}
	return errors.Join(errs...)
}

// Server serves the kubelet's API. Make it with New and run it once.
type Server struct {
	cfg     Config
	ends    *endings
	handler http.Handler
	ready   chan struct{}
}

// New returns a Server. It fails if the configuration is incomplete.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("podserver: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Machine == nil {
		cfg.Machine = LinuxMachine()
	}
	s := &Server{cfg: cfg, ends: newEndings(cfg.Runtime, cfg.Clock), ready: make(chan struct{})}
	var err error
	if s.handler, err = s.newHandler(); err != nil {
		return nil, fmt.Errorf("podserver: %w", err)
	}
	return s, nil
}

// Ready is closed once the socket accepts connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then cuts all streams, removes the socket and
// returns nil. It fails if it can't listen.
func (s *Server) Run(ctx context.Context) error {
	listener, err := listen(s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("podserver: %w", err)
	}
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		if err := errors.Join(server.Close(), listener.Cut()); err != nil {
			klog.FromContext(ctx).Error(err, "The pod server did not stop cleanly")
		}
	})
	close(s.ready)
	err = server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("podserver: %w", err)
}

// FromLister returns the pods of a node as the API has them.
func FromLister(lister corelisters.PodLister, nodeName string) Pods {
	return listedPods{lister, nodeName}
}

type listedPods struct {
	lister   corelisters.PodLister
	nodeName string
}

func (p listedPods) Pod(namespace, name string) (*v1.Pod, bool) {
	pod, err := p.lister.Pods(namespace).Get(name)
	return pod, err == nil && pod.Spec.NodeName == p.nodeName
}

func (p listedPods) Pods() []*v1.Pod {
	all, err := p.lister.List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache has no other way to fail than a bad selector
	}
	return slices.DeleteFunc(all, func(pod *v1.Pod) bool { return pod.Spec.NodeName != p.nodeName })
}
