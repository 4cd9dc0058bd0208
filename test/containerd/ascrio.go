package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage is how large the CRI's client lets a message be.
const maxMessage = 16 << 20

// asCRIO serves containerd's CRI at a socket of its own, and answers there as CRI-O
// does, where the two are known to differ and a client sees it. CRI-O itself can't be
// built from the module proxy: this is what its code says that it answers, and nothing
// of how it runs containers.
type asCRIO struct {
	containerd *grpc.ClientConn
	server     *grpc.Server
	done       chan struct{}
}

func serveAsCRIO(endpoint, path string) (*asCRIO, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(unparsed{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &asCRIO{containerd: conn, done: make(chan struct{})}
	s.server = grpc.NewServer(grpc.ForceServerCodec(unparsed{}), grpc.MaxRecvMsgSize(maxMessage), grpc.UnknownServiceHandler(s.answer))
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // ends by close
	}()
	return s, nil
}

func (s *asCRIO) close() error {
	s.server.Stop()
	<-s.done
	return s.containerd.Close()
}

// answer passes a call on and its answer back.
func (s *asCRIO) answer(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	name := method[strings.LastIndex(method, "/")+1:]
	switch {
	case name == "GetContainerEvents":
		return nil // there are none without enable_pod_events
	case strings.HasPrefix(name, "Stream"):
		return status.Errorf(codes.Unimplemented, "unknown method %s", name)
	}
	var request, response []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	err := s.containerd.Invoke(stream.Context(), method, &request, &response)
	if response, err = s.amend(stream.Context(), name, request, response, err); err != nil {
		return err
	}
	return stream.SendMsg(&response)
}

func (s *asCRIO) amend(ctx context.Context, name string, request, response []byte, err error) ([]byte, error) {
	switch name {
	case "ListImages":
		return amended(response, err, func(r *runtimeapi.ListImagesResponse) {
			for _, i := range r.GetImages() {
				i.Id = bare(i.Id)
			}
		})
	case "ImageStatus":
		return amended(response, err, func(r *runtimeapi.ImageStatusResponse) {
			if i := r.GetImage(); i != nil {
				i.Id = bare(i.Id)
			}
		})
	case "PullImage":
		return amended(response, err, func(r *runtimeapi.PullImageResponse) { r.ImageRef = s.digest(ctx, r.GetImageRef()) })
	case "ListContainers":
		return amended(response, err, func(r *runtimeapi.ListContainersResponse) {
			for _, c := range r.GetContainers() {
				c.ImageId = bare(c.ImageId)
			}
		})
	case "ContainerStatus":
		return amended(response, err, func(r *runtimeapi.ContainerStatusResponse) { amendContainer(r.GetStatus()) })
	case "RunPodSandbox":
		if id := holder(err); id != "" {
			return proto.Marshal(&runtimeapi.RunPodSandboxResponse{PodSandboxId: id})
		}
	case "CreateContainer":
		if id := holder(err); id != "" {
			return proto.Marshal(&runtimeapi.CreateContainerResponse{ContainerId: id})
		}
		if err != nil {
			return nil, status.Error(codes.Unknown, status.Convert(err).Message())
		}
	case "StartContainer":
		return response, s.startFailed(ctx, request, err)
	case "ExecSync":
		if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
			return proto.Marshal(&runtimeapi.ExecSyncResponse{Stderr: []byte("command timed out"), ExitCode: -1})
		}
	}
	return response, err
}

// amendContainer leaves out the name that the user gave the image, and has times that
// there aren't be Go's zero time.
func amendContainer(c *runtimeapi.ContainerStatus) {
	c.ImageId = bare(c.ImageId)
	c.Image.UserSpecifiedImage = ""
	if c.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	for _, at := range []*int64{&c.StartedAt, &c.FinishedAt} {
		if *at == 0 {
			*at = time.Time{}.UnixNano()
		}
	}
}

// bare is an image's ID without its algorithm.
func bare(id string) string { return strings.TrimPrefix(id, "sha256:") }

// digest names an image, which was just pulled, by its digest.
func (s *asCRIO) digest(ctx context.Context, id string) string {
	resp, err := runtimeapi.NewImageServiceClient(s.containerd).ImageStatus(ctx,
		&runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: id}}, grpc.ForceCodec(parsed{}))
	if digests := resp.GetImage().GetRepoDigests(); err == nil && len(digests) > 0 {
		return digests[0]
	}
	return bare(id)
}

var reserved = regexp.MustCompile(`is reserved for "([0-9a-f]+)"`)

// holder is who has the name that something was to be made with, "" if that isn't
// what is wrong: it is taken for what was asked for.
func holder(err error) string {
	if found := reserved.FindStringSubmatch(status.Convert(err).Message()); found != nil {
		return found[1]
	}
	return ""
}

// startFailed removes a container that couldn't be started.
func (s *asCRIO) startFailed(ctx context.Context, request []byte, err error) error {
	if err == nil || status.Code(err) == codes.NotFound {
		return err
	}
	var r runtimeapi.StartContainerRequest
	if err := proto.Unmarshal(request, &r); err != nil {
		return err
	}
	runtime := runtimeapi.NewRuntimeServiceClient(s.containerd)
	resp, statusErr := runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: r.GetContainerId()}, grpc.ForceCodec(parsed{}))
	if statusErr == nil && resp.GetStatus().GetReason() == "StartError" {
		_, statusErr = runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: r.GetContainerId()}, grpc.ForceCodec(parsed{}))
	}
	if statusErr != nil {
		return statusErr
	}
	return status.Errorf(codes.Unknown, "failed to start container %s: %s", r.GetContainerId(), status.Convert(err).Message())
}

// amended has f change a response, unless there is an error.
func amended[M any, P interface {
	*M
	proto.Message
}](response []byte, err error, f func(P)) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	m := P(new(M))
	if err := proto.Unmarshal(response, m); err != nil {
		return nil, err
	}
	f(m)
	return proto.Marshal(m)
}

// unparsed is the codec of messages that are passed on as they are.
type unparsed struct{}

func (unparsed) Name() string { return "proto" }

func (unparsed) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("%T isn't an unparsed message", v)
	}
	return *b, nil
}

func (unparsed) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T isn't an unparsed message", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}

// parsed is the codec of all others.
type parsed struct{}

func (parsed) Name() string { return "proto" }

func (parsed) Marshal(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }

func (parsed) Unmarshal(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) }
