package cri

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/cri/spec"
)

// toStatus gives an error the gRPC code that a CRI server would send with it,
// and leaves alone one that has a code already.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return &statusError{err: err, code: codeOf(err)}
}

func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, spec.ErrInvalid), errdefs.IsInvalidArgument(err):
		return codes.InvalidArgument
	case errdefs.IsNotFound(err), errors.Is(err, cgroups.ErrNotFound):
		return codes.NotFound
	case errdefs.IsAlreadyExists(err):
		return codes.AlreadyExists
	case errdefs.IsFailedPrecondition(err):
		return codes.FailedPrecondition
	case errors.Is(err, network.ErrExhausted):
		return codes.ResourceExhausted
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errdefs.IsNotImplemented(err):
		return codes.Unimplemented
	case errdefs.IsUnavailable(err):
		return codes.Unavailable
	}
	return codes.Unknown
}

// statusError is an error with a gRPC status that keeps its chain: callers in
// this process may look behind the code.
type statusError struct {
	err  error
	code codes.Code
}

// Error has the form that the same error has once it has crossed a socket.
func (e *statusError) Error() string { return e.GRPCStatus().String() }

// GRPCStatus is how package status finds the code.
func (e *statusError) GRPCStatus() *status.Status { return status.New(e.code, e.err.Error()) }

func (e *statusError) Unwrap() error { return e.err }
