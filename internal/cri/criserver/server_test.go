package criserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

// fakeRuntime answers what the tests ask.
type fakeRuntime struct {
	internalapi.RuntimeService
	containers []*runtimeapi.Container
	stdout     []byte
	stderr     []byte
	err        error
	events     chan *runtimeapi.ContainerEventResponse
	// left is closed when an events' reader has gone.
	left chan struct{}
}

func (f *fakeRuntime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return f.containers, f.err
}

func (f *fakeRuntime) ExecSync(_ context.Context, _ string, _ []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	if timeout != 7*time.Second {
		return nil, nil, fmt.Errorf("timeout %s", timeout)
	}
	return f.stdout, f.stderr, f.err
}

func (f *fakeRuntime) StopContainer(ctx context.Context, _ string, _ int64) error {
	<-ctx.Done()
	close(f.left)
	return status.FromContextError(ctx.Err()).Err()
}

func (f *fakeRuntime) GetContainerEvents(ctx context.Context, out chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	defer close(f.left)
	established(nil)
	for {
		select {
		case e := <-f.events:
			out <- e
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve serves a runtime until the returned function is called.
func serve(t *testing.T, runtime internalapi.RuntimeService) (runtimeapi.RuntimeServiceClient, func()) {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	s, err := Listen(t.Context(), Endpoint(path))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, runtime, nil) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn), stop
}

func TestExecSync(t *testing.T) {
	big := bytes.Repeat([]byte("x"), maxMessage)
	for name, tc := range map[string]struct {
		runtime *fakeRuntime
		code    int32
		err     codes.Code
	}{
		"success":             {runtime: &fakeRuntime{stdout: []byte("out"), stderr: []byte("err")}},
		"failure":             {runtime: &fakeRuntime{stderr: []byte("err"), err: utilexec.CodeExitError{Err: errors.New("x"), Code: 3}}, code: 3},
		"error":               {runtime: &fakeRuntime{err: status.Error(codes.NotFound, "no such container")}, err: codes.NotFound},
		"output for two":      {runtime: &fakeRuntime{stdout: big, stderr: big}},
		"output for one":      {runtime: &fakeRuntime{stdout: []byte("out"), stderr: big}},
		"output for the most": {runtime: &fakeRuntime{stdout: big}},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, tc.runtime)
			resp, err := client.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: "c", Timeout: 7})
			if status.Code(err) != tc.err || resp.GetExitCode() != tc.code {
				t.Fatalf("exit code %d, %v", resp.GetExitCode(), err)
			}
			if !bytes.HasPrefix(tc.runtime.stdout, resp.GetStdout()) || !bytes.HasPrefix(tc.runtime.stderr, resp.GetStderr()) {
				t.Error("the output is another")
			}
			if tc.err == codes.OK && len(tc.runtime.stdout) > 0 && len(resp.GetStdout()) == 0 {
				t.Error("one output took all the room")
			}
		})
	}
}

func TestFit(t *testing.T) {
	for _, tc := range []struct{ a, b, wantA, wantB int }{
		{3, 7, 3, 7}, {11, 0, 10, 0}, {0, 11, 0, 10}, {20, 3, 7, 3}, {3, 20, 3, 7}, {20, 20, 5, 5}, {6, 6, 5, 5},
	} {
		a, b := fit(make([]byte, tc.a), make([]byte, tc.b), 10)
		if len(a) != tc.wantA || len(b) != tc.wantB {
			t.Errorf("fit(%d, %d) = %d, %d, want %d, %d", tc.a, tc.b, len(a), len(b), tc.wantA, tc.wantB)
		}
	}
}

// A list larger than any message comes in parts, each item once and in order.
func TestLargeLists(t *testing.T) {
	var all []*runtimeapi.Container
	for i := range 40 {
		all = append(all, &runtimeapi.Container{Id: fmt.Sprint(i), Labels: map[string]string{"l": strings.Repeat("x", 600<<10)}})
	}
	all = append(all, &runtimeapi.Container{Id: "huge", Labels: map[string]string{"l": strings.Repeat("x", 3*maxPart)}})
	client, _ := serve(t, &fakeRuntime{containers: all})
	if _, err := client.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("in one message: %v", err)
	}
	stream, err := client.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		resp, err := stream.Recv()
		if err != nil {
			break
		}
		for _, c := range resp.GetContainers() {
			got = append(got, c.GetId())
		}
	}
	var want []string
	for _, c := range all {
		want = append(want, c.GetId())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestEvents(t *testing.T) {
	f := &fakeRuntime{events: make(chan *runtimeapi.ContainerEventResponse, 1), left: make(chan struct{})}
	client, stop := serve(t, f)
	stream, err := client.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // from here on none is missed
		t.Fatal(err)
	}
	f.events <- &runtimeapi.ContainerEventResponse{ContainerId: "c"}
	if e, err := stream.Recv(); err != nil || e.GetContainerId() != "c" {
		t.Errorf("got %v, %v", e, err)
	}
	stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after the server's end: %v, want Unavailable", err)
	}
	<-f.left
}

// A client that goes away takes its stream's reader with it.
func TestAnEventsReaderLeaves(t *testing.T) {
	f := &fakeRuntime{left: make(chan struct{})}
	client, _ := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-f.left
}

// Run returns only once the calls under way have seen that they are to end.
func TestStopWaitsForCalls(t *testing.T) {
	f := &fakeRuntime{left: make(chan struct{})}
	client, stop := serve(t, f)
	answered := make(chan error, 1)
	go func() {
		_, err := client.StopContainer(context.Background(), &runtimeapi.StopContainerRequest{})
		answered <- err
	}()
	// Another call's answer says that the server is at work.
	if _, err := client.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-answered; err == nil {
		t.Error("a call that was cut off succeeded")
	}
}
