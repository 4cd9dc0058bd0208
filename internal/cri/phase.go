package cri

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// containerPhase is where a container stands in its life.
type containerPhase string

const (
	containerCreating containerPhase = "being created"
	containerCreated  containerPhase = "created"
	containerStarting containerPhase = "starting"
	containerRunning  containerPhase = "running"
	containerExited   containerPhase = "exited"
	containerRemoved  containerPhase = "removed"
)

// next lists the phases that may follow. What isn't in it is an error.
func (p containerPhase) next() []containerPhase {
	switch p {
	case containerCreating:
		return []containerPhase{containerCreated, containerRemoved}
	case containerCreated:
		// Exited without having run: the host was restarted.
		return []containerPhase{containerStarting, containerRunning, containerExited, containerRemoved}
	case containerStarting:
		// Created again: the start was called off and left nothing.
		return []containerPhase{containerRunning, containerExited, containerCreated}
	case containerRunning:
		return []containerPhase{containerExited}
	case containerExited:
		return []containerPhase{containerRemoved}
	}
	return nil
}

// sandboxPhase is where a sandbox stands in its life.
type sandboxPhase string

const (
	sandboxCreating sandboxPhase = "being created"
	sandboxReady    sandboxPhase = "ready"
	sandboxStopped  sandboxPhase = "not ready"
	sandboxRemoved  sandboxPhase = "removed"
)

func (p sandboxPhase) next() []sandboxPhase {
	switch p {
	case sandboxCreating:
		return []sandboxPhase{sandboxReady, sandboxRemoved}
	case sandboxReady:
		return []sandboxPhase{sandboxStopped}
	case sandboxStopped:
		return []sandboxPhase{sandboxRemoved}
	}
	return nil
}

// phase is either of the two.
type phase[P any] interface {
	~string
	comparable
	next() []P
}

// advance moves *p on, or says why it can't.
func advance[P phase[P]](p *P, to P, what string) error {
	for _, n := range (*p).next() {
		if n == to {
			*p = to
			return nil
		}
	}
	return fmt.Errorf("%s is %s, it can't become %s: %w", what, string(*p), string(to), errdefs.ErrFailedPrecondition)
}
