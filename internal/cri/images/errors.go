package images

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// statusError turns err into what a CRI server would send: containerd's code for it, and its message without secrets.
func statusError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codeOf(err), redact(err))
}

func codeOf(err error) codes.Code {
	switch {
	case noSpace(err):
		return codes.ResourceExhausted
	case errors.Is(err, context.Canceled), errdefs.IsCanceled(err):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded), errdefs.IsDeadlineExceeded(err):
		return codes.DeadlineExceeded
	case errdefs.IsInvalidArgument(err):
		return codes.InvalidArgument
	case errdefs.IsNotFound(err):
		return codes.NotFound
	case errdefs.IsAlreadyExists(err):
		return codes.AlreadyExists
	case errdefs.IsPermissionDenied(err):
		return codes.PermissionDenied
	case errdefs.IsFailedPrecondition(err):
		return codes.FailedPrecondition
	case errdefs.IsUnavailable(err):
		return codes.Unavailable
	case errdefs.IsNotImplemented(err):
		return codes.Unimplemented
	}
	return codes.Unknown
}

// redact returns err's message with the query of a URL in it blotted out: registries redirect to storage with signed URLs, and
// the message ends up in an event that everyone may read.
func redact(err error) string {
	msg := err.Error()
	urlErr, ok := errors.AsType[*url.Error](err)
	if !ok {
		return msg
	}
	u, parseErr := url.Parse(urlErr.URL)
	if parseErr != nil || u.RawQuery == "" {
		return msg
	}
	query := u.Query()
	for key := range query {
		query.Set(key, "[REDACTED]")
	}
	u.RawQuery = query.Encode()
	return strings.ReplaceAll(msg, urlErr.URL, u.String())
}

// errStalled ends a connection over which nothing comes any more. It is a timeout to net.Error's users.
type errStalled struct{ after string }

func (e errStalled) Error() string { return "no data received for " + e.after }
func (errStalled) Timeout() bool   { return true }
func (errStalled) Temporary() bool { return true }

// errUnreachable is a registry that can't be connected to, or doesn't answer, in time. It hides that it is a timeout: containerd's
// client would wait five times over, per source, before it told.
type errUnreachable struct{ err error }

func (e errUnreachable) Error() string { return e.err.Error() }
func (e errUnreachable) Unwrap() error { return e.err }

// unreachable reports whether nobody answered.
func unreachable(err error) bool {
	_, ok := errors.AsType[errUnreachable](err)
	return ok || errors.Is(err, syscall.ECONNREFUSED)
}

// transient reports whether a request that failed with err may succeed when it is tried again at once.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	for _, target := range []error{syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, target) {
			return true
		}
	}
	if unexpected, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		switch unexpected.StatusCode {
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	netErr, ok := errors.AsType[net.Error](err)
	return ok && netErr.Timeout()
}

// resumable reports whether a later attempt may go on with what a pull fetched before it failed with err.
func resumable(err error) bool {
	if noSpace(err) {
		return false // the space is needed
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		unreachable(err) || transient(err)
}
