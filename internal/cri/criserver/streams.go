package criserver

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxPart is what the items of one message of a streamed list may have in bytes
// together: far below maxMessage, so that one more item of any usual size, and
// the framing, still fit.
const maxPart = 1 << 20

// inParts sends a list in messages that each fit, in order; none where there are
// no items (KEP-5825).
func inParts[T proto.Message](items []T, send func([]T) error) error {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+proto.Size(items[n]) <= maxPart) {
			size += proto.Size(items[n])
			n++
		}
		if err := send(slices.Clip(items[:n])); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

func (s *runtimeServer) StreamPodSandboxes(r *runtimeapi.StreamPodSandboxesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	items, err := s.runtime.ListPodSandbox(out.Context(), r.GetFilter())
	if err != nil {
		return err
	}
	return inParts(items, func(part []*runtimeapi.PodSandbox) error {
		return out.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: part})
	})
}

func (s *runtimeServer) StreamContainers(r *runtimeapi.StreamContainersRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	items, err := s.runtime.ListContainers(out.Context(), r.GetFilter())
	if err != nil {
		return err
	}
	return inParts(items, func(part []*runtimeapi.Container) error {
		return out.Send(&runtimeapi.StreamContainersResponse{Containers: part})
	})
}

func (s *runtimeServer) StreamContainerStats(r *runtimeapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	items, err := s.runtime.ListContainerStats(out.Context(), r.GetFilter())
	if err != nil {
		return err
	}
	return inParts(items, func(part []*runtimeapi.ContainerStats) error {
		return out.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: part})
	})
}

func (s *runtimeServer) StreamPodSandboxStats(r *runtimeapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	items, err := s.runtime.ListPodSandboxStats(out.Context(), r.GetFilter())
	if err != nil {
		return err
	}
	return inParts(items, func(part []*runtimeapi.PodSandboxStats) error {
		return out.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: part})
	})
}

func (s *runtimeServer) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	items, err := s.runtime.ListPodSandboxMetrics(out.Context())
	if err != nil {
		return err
	}
	return inParts(items, func(part []*runtimeapi.PodSandboxMetrics) error {
		return out.Send(&runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: part})
	})
}

// errStopping ends the streams of a server that is stopped; clients come back.
var errStopping = status.Error(codes.Unavailable, "the runtime is stopping")

// GetContainerEvents sends the header as soon as no event can be missed any
// more: a client that wants to know waits for it.
func (s *runtimeServer) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	events, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan error, 1)
	subscribed := make(chan struct{})
	go func() {
		ended <- s.runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) })
	}()
	for {
		select {
		case <-subscribed:
			subscribed = nil
			if err := out.SendHeader(metadata.MD{}); err != nil {
				return err
			}
		case e := <-events:
			if err := out.Send(e); err != nil {
				return err
			}
		case err := <-ended:
			if s.stopping.Err() != nil {
				return errStopping
			}
			return status.FromContextError(err).Err()
		}
	}
}
