package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/cri/metadata"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/oci"
)

// reconcile brings the records together with what is there. What has no record,
// or one of an operation that didn't end, is removed.
func (s *Service) reconcile(ctx context.Context) error {
	list, err := s.cfg.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("ask the containers' parent: %w", err)
	}
	alive := map[string]oci.Status{}
	for _, st := range list {
		alive[st.ID] = st
	}
	if err := s.loadSandboxes(ctx, alive); err != nil {
		return err
	}
	if err := s.loadContainers(ctx, alive); err != nil {
		return err
	}
	return s.removeOrphans(ctx, alive)
}

func (s *Service) loadSandboxes(ctx context.Context, alive map[string]oci.Status) error {
	records, damaged, err := s.sandboxRecords.Load()
	if err != nil {
		return err
	}
	logger := klog.FromContext(ctx)
	for _, id := range damaged {
		logger.Info("The record of a sandbox was damaged; what is left of it is removed", "sandbox", id)
	}
	for id, r := range records {
		sb := &sandbox{
			id: id, createdAt: r.CreatedAt, boot: r.Boot, handler: r.Handler, address: r.Address,
			dir: filepath.Join(s.sandboxesDir(), id), phase: sandboxCreating, config: r.Config.M, members: map[string]*container{},
		}
		s.takeOverCgroup(sb)
		if r.Phase == metadata.Creating {
			if err := errors.Join(s.unmakeSandbox(ctx, sb), s.forgetSandbox(ctx, sb)); err != nil {
				return fmt.Errorf("remove a half-made sandbox: %w", err)
			}
			continue
		}
		sb.phase = sandboxStopped
		if r.Phase == metadata.Created {
			if err := s.takeOver(ctx, sb, alive); err != nil {
				return err
			}
		}
		s.addSandbox(sb)
		s.names[sandboxName(sb.config)] = id
	}
	s.dropStoppedCgroups(ctx)
	return nil
}

// dropStoppedCgroups makes up for stops that were cut short, now that all users
// of each cgroup are counted. What fails is left to the sandbox's removal.
func (s *Service) dropStoppedCgroups(ctx context.Context) {
	for _, sb := range s.allSandboxes() {
		if phase, _ := sb.state(); phase != sandboxStopped {
			continue
		}
		if err := s.removeCgroup(ctx, sb); err != nil {
			klog.FromContext(ctx).Error(err, "The cgroup of a stopped sandbox stays until the sandbox is removed", "sandbox", sb.id)
		}
	}
}

// takeOver finds out whether a sandbox that was ready still is.
func (s *Service) takeOver(ctx context.Context, sb *sandbox, alive map[string]oci.Status) error {
	ready := sb.boot == s.boot
	for _, k := range sb.kinds() {
		ready = ready && s.cfg.Namespaces.Pinned(sb.id, k)
	}
	if sb.sharesPID() {
		ready = ready && alive[sb.id].State == oci.Running && s.cfg.Namespaces.Pinned(sb.id, namespace.PID)
	}
	if ready && sb.address.IsValid() {
		ports, err := sb.ports()
		if err == nil {
			err = s.cfg.Network.Restore(sb.id, sb.address, ports)
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "The network of a sandbox can't be taken over; the sandbox is stopped", "sandbox", sb.id)
			ready = false
		}
	}
	if ready {
		sb.phase = sandboxReady
		return nil
	}
	// Its containers are the next to be looked at. Those that run in what is
	// left of the sandbox end with it.
	if sb.boot == s.boot {
		if err := s.killIn(sb); err != nil {
			return err
		}
	}
	if err := s.unmakeSandbox(ctx, sb); err != nil {
		return fmt.Errorf("stop a sandbox that is broken: %w", err)
	}
	return s.sandboxRecords.Put(sb.id, sb.record())
}

// killIn kills all that runs in a sandbox whose containers aren't loaded yet.
func (s *Service) killIn(sb *sandbox) error {
	if s.ownsCgroup(sb) {
		return s.cfg.Cgroups.Kill(s.cgroup(sb))
	}
	records, _, err := s.containerRecords.Load()
	if err != nil {
		return err
	}
	for id, r := range records {
		if r.SandboxID == sb.id {
			if err := s.cfg.Cgroups.Kill(filepath.Join(s.cgroup(sb), id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) loadContainers(ctx context.Context, alive map[string]oci.Status) error {
	records, damaged, err := s.containerRecords.Load()
	if err != nil {
		return err
	}
	for _, id := range damaged {
		klog.FromContext(ctx).Info("The record of a container was damaged; what is left of it is removed", "container", id)
	}
	for id, r := range records {
		sb := s.sandboxes[r.SandboxID]
		if sb == nil || r.Phase == metadata.Creating {
			if sb == nil {
				sb = &sandbox{id: r.SandboxID}
			}
			c := s.fromRecord(r, sb)
			if err := errors.Join(s.unmakeContainer(ctx, c), s.containerRecords.Delete(id)); err != nil {
				return fmt.Errorf("remove a half-made container: %w", err)
			}
			continue
		}
		c := s.fromRecord(r, sb)
		s.addContainer(c)
		s.names[c.name()] = id
		if err := s.resume(ctx, c, alive); err != nil {
			return err
		}
	}
	return nil
}

// resume finds out what has become of a container meanwhile.
func (s *Service) resume(ctx context.Context, c *container, alive map[string]oci.Status) error {
	st, known := alive[c.id]
	switch {
	case c.phase == containerExited:
		return s.cleanContainer(ctx, c)
	case known && st.State == oci.Running:
		return s.started(c, st.Pid, st.StartedAt)
	case known:
		if err := s.started(c, st.Pid, st.StartedAt); err != nil {
			return err
		}
		s.finishAndClean(ctx, c, exitOf(st))
	case c.boot != s.boot:
		exit := metadata.Exit{Code: codeLost, FinishedAt: s.cfg.Clock.Now(), Reason: reasonUnknown, Message: rebootMessage}
		return errors.Join(s.finish(c, exit), s.cleanContainer(ctx, c))
	}
	return nil // created, and not started yet
}

// removeOrphans removes what no record speaks of.
func (s *Service) removeOrphans(ctx context.Context, alive map[string]oci.Status) error {
	for id := range alive {
		if s.containers[id] == nil && s.sandboxes[id] == nil {
			if err := s.cfg.Runtime.Delete(ctx, id); err != nil {
				return err
			}
		}
	}
	pinned, err := s.cfg.Namespaces.List()
	if err != nil {
		return err
	}
	for _, id := range pinned {
		if sb := s.sandboxes[id]; sb == nil || sb.phase != sandboxReady {
			if err := s.cfg.Namespaces.Remove(id); err != nil {
				return err
			}
		}
	}
	err = eachEntry(s.sandboxesDir(), func(id string) error {
		if s.sandboxes[id] != nil {
			return nil
		}
		return s.removeSandboxFiles(filepath.Join(s.sandboxesDir(), id))
	})
	if err != nil {
		return err
	}
	err = eachEntry(s.bundlesDir(), func(id string) error {
		if s.containers[id] != nil {
			return closeBundle(filepath.Join(s.bundlesDir(), id))
		}
		return s.removeBundle(filepath.Join(s.bundlesDir(), id))
	})
	if err != nil {
		return err
	}
	for _, id := range s.cfg.Images.ListRootfs(ctx) {
		if s.containers[id] == nil {
			if err := s.cfg.Images.RemoveRootfs(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func eachEntry(dir string, f func(name string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := f(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Destroy stops and removes all sandboxes with their containers, and then what
// the runtime made for itself, but for CgroupParent, where the containers'
// parent still lives. It is for an errand that ends for good.
func (s *Service) Destroy(ctx context.Context) error {
	var errs []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, sb := range s.allSandboxes() {
		all.Go(func() {
			if err := s.RemovePodSandbox(ctx, sb.id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	errs = append(errs, s.Close(ctx))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(s.sandboxesDir()), os.RemoveAll(s.bundlesDir()))
}

// describe is what an event tells of the pod besides itself.
func (s *Service) describe(sandboxID string) (*runtimeapi.PodSandboxStatus, []*runtimeapi.ContainerStatus) {
	s.mu.RLock()
	sb := s.sandboxes[sandboxID]
	s.mu.RUnlock()
	if sb == nil {
		return nil, nil
	}
	return sb.status(), s.statusesOf(sandboxID)
}
