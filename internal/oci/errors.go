package oci

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"errand.dev/errand/internal/oci/shimapi"
)

// The errors that callers tell apart, by errors.Is or by containerd's errdefs.
var (
	ErrNotFound   = fmt.Errorf("no such container: %w", errdefs.ErrNotFound)
	ErrExists     = fmt.Errorf("container exists: %w", errdefs.ErrAlreadyExists)
	ErrNotRunning = fmt.Errorf("container is not running: %w", errdefs.ErrFailedPrecondition)
	ErrInvalid    = fmt.Errorf("invalid request: %w", errdefs.ErrInvalidArgument)
	// ErrDraining says that the parent is about to stop and takes no new containers.
	ErrDraining = fmt.Errorf("containers' parent is being drained: %w", errdefs.ErrUnavailable)
	// ErrParentLost says that the parent process died, and the containers with it.
	ErrParentLost = fmt.Errorf("containers' parent process was lost: %w", errdefs.ErrUnavailable)
)

// StartError says that a process couldn't be started for a reason in its own spec: no such command, not executable, no
// such working directory. Kubernetes reports such a container as terminated with exit code 128 and reason StartError.
type StartError struct {
	ID      string // of the container
	Message string
}

func (e *StartError) Error() string { return e.Message }

// RuntimeError says that the OCI runtime failed.
type RuntimeError struct {
	ID      string // of the container
	Message string
}

func (e *RuntimeError) Error() string { return e.Message }

// marked is an error with a message of the shim's, which matches a sentinel without repeating its text.
type marked struct {
	error
	is error
}

func (m marked) Unwrap() error { return m.is }

// fromWire makes errors of package oci of the shim's.
func fromWire(id string, e *shimapi.Error) error {
	switch e.Code {
	case shimapi.CodeStart:
		return &StartError{ID: id, Message: e.Message}
	case shimapi.CodeRuntime:
		return &RuntimeError{ID: id, Message: e.Message}
	case shimapi.CodeNotFound:
		return marked{e, ErrNotFound}
	case shimapi.CodeExists:
		return marked{e, ErrExists}
	case shimapi.CodeState:
		return marked{e, ErrNotRunning}
	case shimapi.CodeDraining:
		return marked{e, ErrDraining}
	case shimapi.CodeInvalid:
		return marked{e, ErrInvalid}
	}
	return errors.New("errand-shim: " + e.Message)
}
