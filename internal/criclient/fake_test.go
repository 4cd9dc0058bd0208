package criclient

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/cri/cgroups"
)

const patience = 10 * time.Second

// server is a runtime that does what a test says.
type server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	images
	driver     runtimeapi.CgroupDriver
	noConfig   bool
	stream     func(runtimeapi.RuntimeService_GetContainerEventsServer) error
	mu         sync.Mutex
	containers []*runtimeapi.Container
	sandboxes  []*runtimeapi.PodSandbox
	listed     *runtimeapi.ContainerFilter
	ran        *runtimeapi.PodSandboxConfig
	created    *runtimeapi.CreateContainerRequest
}

type images struct {
	runtimeapi.UnimplementedImageServiceServer
}

func (images) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

func (s *server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

func (s *server) RuntimeConfig(ctx context.Context, r *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	if s.noConfig {
		return s.UnimplementedRuntimeServiceServer.RuntimeConfig(ctx, r)
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: s.driver}}, nil
}

func (s *server) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = r.GetFilter()
	return &runtimeapi.ListContainersResponse{Containers: s.containers}, nil
}

func (s *server) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &runtimeapi.ListPodSandboxResponse{Items: s.sandboxes}, nil
}

func (s *server) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ran = r.GetConfig()
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: "sandbox"}, nil
}

func (s *server) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = r
	return &runtimeapi.CreateContainerResponse{ContainerId: "container"}, nil
}

// ExecSync hangs whatever the timeout, as containerd's may.
func (s *server) ExecSync(ctx context.Context, _ *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	if s.stream == nil {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	return s.stream(stream)
}

func (s *server) set(containers ...*runtimeapi.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers = containers
}

// serve serves it at a socket until the test's end, or until the returned
// function is called.
func serve(t *testing.T, path string, s *server) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(g, s)
	runtimeapi.RegisterImageServiceServer(g, s)
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(listener) }()
	stop = sync.OnceFunc(func() {
		g.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// socket is a path for one, short enough to be one.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// world is a client that runs, and what it told.
type world struct {
	*Client
	t       *testing.T
	changes chan struct{}
}

func run(t *testing.T, path string, clk clock.Clock) *world {
	t.Helper()
	w := &world{t: t, changes: make(chan struct{}, 100)}
	var err error
	w.Client, err = New(Config{
		Endpoint: "unix://" + path, Owner: "me", Cgroups: &cgroups.Tree{}, Clock: clk, Changed: func() { w.changes <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	receive(t, w.Settled(), "whether the runtime is there")
	return w
}

// receive waits for something that must come.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}
