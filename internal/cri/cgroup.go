package cri

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/cgroups"
)

// What removeCgroup waits between its tries: 2 s in all.
const (
	cgroupRetryFirst = time.Millisecond
	cgroupRetryLast  = time.Second
)

// users counts the sandboxes in each pod's cgroup: a pod whose sandbox was
// replaced has two for a while, and the limits must stay with the second.
type users struct {
	mu    sync.Mutex
	count map[string]int
}

// ownsCgroup says whether the pod's cgroup is the runtime's: below its own.
// Another one, which a client named (linux.cgroup_parent), is its owner's: it has
// the limits that they gave it, other processes than the pod's may be in it, and
// it may be the root. It is made where it is missing, and stays.
func (s *Service) ownsCgroup(sb *sandbox) bool {
	return strings.HasPrefix(s.cgroup(sb), s.cfg.CgroupParent+"/")
}

func (s *Service) makeCgroup(sb *sandbox, limits cgroups.Limits) error {
	path := s.cgroup(sb)
	switch {
	case path == "/":
		return nil
	case !s.ownsCgroup(sb):
		return s.cfg.Cgroups.Create(path, nil)
	}
	s.cgroupUsers.mu.Lock()
	defer s.cgroupUsers.mu.Unlock()
	if !sb.usesCgroup {
		sb.usesCgroup = true
		s.cgroupUsers.count[path]++
	}
	return s.cfg.Cgroups.Create(path, limits)
}

// takeOverCgroup counts a sandbox of an earlier errand's.
func (s *Service) takeOverCgroup(sb *sandbox) {
	if !s.ownsCgroup(sb) {
		return
	}
	s.cgroupUsers.mu.Lock()
	defer s.cgroupUsers.mu.Unlock()
	sb.usesCgroup = true
	s.cgroupUsers.count[s.cgroup(sb)]++
}

// removeCgroup removes the pod's cgroup with its last sandbox that isn't
// stopped, killing what a
// container may have left in it. A killed process leaves its cgroup only once
// the kernel has taken it apart, and version 1 gives no notice of that: hence
// the few, bounded retries, which version 2 makes short.
func (s *Service) removeCgroup(ctx context.Context, sb *sandbox) error {
	err := s.tryRemoveCgroup(sb)
	for delay := cgroupRetryFirst; errors.Is(err, unix.EBUSY) && delay <= cgroupRetryLast; delay *= 2 {
		if err := s.cfg.Cgroups.Kill(s.cgroup(sb)); err != nil {
			return err
		}
		if !s.cfg.Cgroups.AwaitEmpty(s.cgroup(sb), delay) {
			select {
			case <-s.cfg.Clock.After(delay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err = s.tryRemoveCgroup(sb)
	}
	return err
}

func (s *Service) tryRemoveCgroup(sb *sandbox) error {
	path := s.cgroup(sb)
	s.cgroupUsers.mu.Lock()
	defer s.cgroupUsers.mu.Unlock()
	if !sb.usesCgroup {
		return nil
	}
	if s.cgroupUsers.count[path] == 1 {
		if err := s.cfg.Cgroups.Remove(path); err != nil {
			return err
		}
	}
	if s.cgroupUsers.count[path]--; s.cgroupUsers.count[path] == 0 {
		delete(s.cgroupUsers.count, path)
	}
	sb.usesCgroup = false
	return nil
}
