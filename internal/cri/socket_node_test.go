//go:build node

package cri_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"errand.dev/errand/internal/cri/criserver"
	"errand.dev/errand/internal/cri/critest"
)

// What the runtime promises it also promises to a kubelet, over a socket.
func TestContractOverASocket(t *testing.T) {
	m := newMachine(t)
	l := m.start()
	defer l.destroy()
	endpoint := criserver.Endpoint(filepath.Join(m.dataDir, "cri.sock"))
	server, err := criserver.Listen(t.Context(), endpoint)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l.Service, m.store.Service()) }()
	defer func() { cancel(); must(t, <-ended) }()
	remote, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(time.Minute).
		WithUseStreaming(true).Build(t.Context())
	must(t, err)
	defer remote.Close(ctx)
	env := l.env()
	env.Runtime = kubeletsClient{remote}
	critest.Run(t, env)
}

// kubeletsClient is the kubelet's client of a CRI socket, in two ways more like
// what it stands for.
type kubeletsClient struct{ internalapi.RuntimeService }

// ExecSync gives a timeout its code back.
func (c kubeletsClient) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	stdout, stderr, err = c.RuntimeService.ExecSync(ctx, id, cmd, timeout)
	if errors.Is(err, criclient.ErrCommandTimedOut) {
		err = status.Error(codes.DeadlineExceeded, err.Error())
	}
	return stdout, stderr, err
}

// GetContainerEvents says that it is established once no event can be missed,
// and ends with ctx also where nobody takes the last event.
func (c kubeletsClient) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	received, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan error, 1)
	go func() {
		ended <- c.RuntimeService.GetContainerEvents(ctx, received, func(stream runtimeapi.RuntimeService_GetContainerEventsClient) {
			if _, err := stream.Header(); err == nil {
				established(stream)
			}
		})
	}()
	for {
		select {
		case err := <-ended:
			return err
		case e := <-received:
			select {
			case events <- e:
			case <-ctx.Done(): // what is still received is dropped
			}
		}
	}
}
