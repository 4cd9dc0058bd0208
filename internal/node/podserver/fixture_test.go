package podserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cri is a fake runtime with one pod of one container, "c", whose log is at path.
type cri struct {
	streams streaming.Server // nil: exec and such fail

	mu        sync.Mutex
	path      string
	state     runtimeapi.ContainerState
	readers   []chan *runtimeapi.ContainerEventResponse
	subscribe chan struct{} // gets an item for each new reader of events
	left      chan struct{} // and for each that leaves
	attached  []*runtimeapi.AttachRequest
}

func newCRI(path string) *cri {
	return &cri{
		path: path, state: runtimeapi.ContainerState_CONTAINER_RUNNING,
		subscribe: make(chan struct{}, 100), left: make(chan struct{}, 100),
	}
}

func (c *cri) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id != "id-1" {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, State: c.state, LogPath: c.path}}, nil
}

func (c *cri) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	if f.LabelSelector == nil {
		return []*runtimeapi.Container{{Id: "id-1", CreatedAt: 5e9}}, nil
	}
	if f.LabelSelector["io.kubernetes.pod.uid"] != "uid-1" || f.LabelSelector["io.kubernetes.container.name"] != "c" {
		return nil, nil
	}
	return []*runtimeapi.Container{{Id: "id-1"}}, nil
}

func (c *cri) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	if f.LabelSelector["io.kubernetes.pod.uid"] != "uid-1" {
		return nil, nil
	}
	return []*runtimeapi.PodSandbox{{Id: "sandbox-1"}}, nil
}

func (c *cri) ListPodSandboxStats(context.Context, *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	usage := &runtimeapi.CpuUsage{
		Timestamp: 8e9, UsageNanoCores: &runtimeapi.UInt64Value{Value: 7}, UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: 2e9},
	}
	memory := &runtimeapi.MemoryUsage{Timestamp: 8e9, WorkingSetBytes: &runtimeapi.UInt64Value{Value: 9}}
	sandbox := func(uid string) *runtimeapi.PodSandboxStats {
		return &runtimeapi.PodSandboxStats{
			Attributes: &runtimeapi.PodSandboxAttributes{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: uid}},
			Linux: &runtimeapi.LinuxPodSandboxStats{Cpu: usage, Containers: []*runtimeapi.ContainerStats{{
				Attributes: &runtimeapi.ContainerAttributes{Id: "id-1", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}}, Memory: memory,
			}}},
		}
	}
	return []*runtimeapi.PodSandboxStats{sandbox("gone"), sandbox("uid-1")}, nil
}

func (c *cri) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if c.streams == nil {
		return nil, status.Error(codes.NotFound, "container is gone")
	}
	return c.streams.GetExec(r)
}

func (c *cri) Attach(_ context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	c.mu.Lock()
	c.attached = append(c.attached, r)
	c.mu.Unlock()
	return c.streams.GetAttach(r)
}

func (c *cri) PortForward(_ context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return c.streams.GetPortForward(r)
}

func (c *cri) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	c.mu.Lock()
	c.readers = append(c.readers, events)
	c.mu.Unlock()
	established(nil)
	c.subscribe <- struct{}{}
	<-ctx.Done()
	c.mu.Lock()
	c.readers = slices.DeleteFunc(c.readers, func(r chan *runtimeapi.ContainerEventResponse) bool { return r == events })
	c.mu.Unlock()
	c.left <- struct{}{}
	return ctx.Err()
}

// exit ends the container.
func (c *cri) exit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = runtimeapi.ContainerState_CONTAINER_EXITED
	for _, r := range c.readers {
		r <- &runtimeapi.ContainerEventResponse{ContainerId: "id-1", ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT}
	}
}

// onePod is a node with one pod.
type onePod struct{ pod *v1.Pod }

func (p onePod) Pod(namespace, name string) (*v1.Pod, bool) {
	return p.pod, namespace == p.pod.Namespace && name == p.pod.Name
}

func (p onePod) Pods() []*v1.Pod { return []*v1.Pod{p.pod} }

func runningPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid-1"},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c"}, {Name: "other"}, {Name: "removed"}}},
		Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{
			{Name: "c", ContainerID: "errand://id-1", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}},
			{Name: "other", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
			{
				Name: "removed", ContainerID: "errand://id-3", RestartCount: 1,
				State:                v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "errand://id-3"}},
				LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "errand://id-2"}},
			},
		}},
	}
}

// world is a Server on a socket, with a client that only knows the socket.
type world struct {
	cri    *cri
	log    string
	socket string
	client *http.Client
	stop   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	logDir := t.TempDir()
	short, err := os.MkdirTemp("/tmp", "e") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	w := &world{log: filepath.Join(logDir, "ns_p_uid-1/c/0.log"), socket: filepath.Join(short, "s")}
	if err := os.MkdirAll(filepath.Dir(w.log), 0o755); err != nil {
		t.Fatal(err)
	}
	w.cri = newCRI(w.log)
	kept := oneKept{sample + "2026-01-01T00:00:06Z stdout F " + strings.Repeat("x", 100<<10) + "\n2026-01-01T00:00:07Z stdout P end\n"}
	server, err := New(Config{KeptLogs: kept, Socket: w.socket, NodeName: "n", Machine: busyMachine{}, Metrics: testMetrics(), Pods: onePod{runningPod()}, Runtime: w.cri, LogDir: logDir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	<-server.Ready()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
	}}
	w.client = &http.Client{Transport: transport}
	w.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// get returns the status and body of a request.
func (w *world) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := w.client.Get("http://node" + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (w *world) write(t *testing.T, text string) {
	t.Helper()
	f, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// follow is a log that is being followed.
type follow struct {
	resp   *http.Response
	cancel context.CancelFunc
}

func (w *world) follow(t *testing.T, query string) *follow {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/containerLogs/ns/p/c?follow=true"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	<-w.cri.subscribe
	return &follow{resp, cancel}
}

// want reads exactly the text.
func (f *follow) want(t *testing.T, text string) {
	t.Helper()
	got := make([]byte, len(text))
	timer := time.AfterFunc(30*time.Second, f.cancel)
	defer timer.Stop()
	if _, err := io.ReadFull(f.resp.Body, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v; want %q", got, err, text)
	}
}

// wantEnd reads that there is no more.
func (f *follow) wantEnd(t *testing.T) {
	t.Helper()
	rest, err := io.ReadAll(f.resp.Body)
	if err != nil || len(rest) > 0 {
		t.Fatalf("%q, %v; want the end", rest, err)
	}
}
