package criserver

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// maxMessage is the size in bytes of the largest message, in either direction:
// the same as the kubelet's and every other runtime's.
const maxMessage = 16 << 20

// Server serves a runtime on a socket.
type Server struct {
	listener net.Listener
	grpc     *grpc.Server
	// stopping is closed when Run is to end: streams that would go on for ever
	// end with it.
	stopping context.Context
	stop     context.CancelFunc
}

// Listen makes the socket of endpoint, a unix:// address. Clients may connect at
// once; they are answered while Run runs. It returns a *ServedError where another
// process serves there.
func Listen(ctx context.Context, endpoint string) (*Server, error) {
	path, err := SocketPath(endpoint)
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, path)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(logUnary), grpc.StreamInterceptor(logStream),
	)
	return s, nil
}

// Run serves until ctx ends, then cuts off the calls under way, waits for them
// to clean up after themselves, and removes the socket. It is called once.
func (s *Server) Run(ctx context.Context, runtime internalapi.RuntimeService, images internalapi.ImageManagerService) error {
	runtimeapi.RegisterRuntimeServiceServer(s.grpc, &runtimeServer{runtime: runtime, stopping: s.stopping})
	runtimeapi.RegisterImageServiceServer(s.grpc, &imageServer{images: images})
	cancel := context.AfterFunc(ctx, func() {
		s.stop()
		s.grpc.Stop()
	})
	defer cancel()
	if err := s.grpc.Serve(s.listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the CRI: %w", err)
	}
	s.grpc.Stop() // returns once the handlers have
	return nil
}

// Close removes the socket of a Server that isn't run.
func (s *Server) Close() error {
	s.stop()
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the CRI's socket: %w", err)
	}
	return nil
}

// logCall tells of a call that has ended. Clients ask for much that isn't there,
// so that their errors are theirs to tell; here they help to find what a client
// does.
func logCall(ctx context.Context, method string, err error) {
	if err != nil {
		klog.FromContext(ctx).V(2).Info("A CRI call failed", "method", method, "code", status.Code(err), "err", err)
		return
	}
	klog.FromContext(ctx).V(4).Info("Answered a CRI call", "method", method)
}

func logUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	logCall(ctx, info.FullMethod, err)
	return resp, err
}

func logStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	err := handle(srv, stream)
	logCall(stream.Context(), info.FullMethod, err)
	return err
}
