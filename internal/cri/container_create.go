package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/spec"
	"errand.dev/errand/internal/podtrace"
)

// CreateContainer makes everything that the container needs to be started: its
// root, bundle and record. No process is started. The sandbox's configuration
// is the one that it was made with; the argument is ignored. On failure nothing
// is left. Codes: NotFound (sandbox or image), FailedPrecondition (the sandbox
// isn't ready), InvalidArgument, AlreadyExists.
func (s *Service) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	sb, err := s.sandbox(sandboxID)
	if err != nil {
		return "", toStatus(fmt.Errorf("failed to find sandbox id %q: %w", sandboxID, err))
	}
	sb.life.RLock()
	defer sb.life.RUnlock()
	id, err := s.createContainer(ctx, sb, config)
	if errors.Is(err, crierrors.ErrImageVolumeMountFailed) {
		return "", toStatus(err) // which a kubelet knows by how it begins
	}
	if err != nil {
		return "", toStatus(fmt.Errorf("failed to create container: %w", err))
	}
	return id, nil
}

func (s *Service) createContainer(ctx context.Context, sb *sandbox, config *runtimeapi.ContainerConfig) (string, error) {
	if phase, _ := sb.state(); phase != sandboxReady {
		return "", fmt.Errorf("%s is %s: %w", sb.what(), phase, errdefs.ErrFailedPrecondition)
	}
	if config.GetMetadata() == nil {
		return "", fmt.Errorf("%w: the container's metadata is missing", spec.ErrInvalid)
	}
	if err := sameUsers(sb, config); err != nil {
		return "", err
	}
	img, err := s.cfg.Images.Get(ctx, config.GetImage().GetImage())
	if err != nil {
		return "", fmt.Errorf("failed to resolve image %q: %w", config.GetImage().GetImage(), err)
	}
	c := s.newContainer(sb, config, img)
	if c.stopSignal, err = spec.StopSignal(config, img.Config); err != nil {
		return "", err
	}
	if err := s.reserve(c.name(), c.id); err != nil {
		return "", err
	}
	if err := s.makeContainer(ctx, c, img); err != nil {
		err = errors.Join(err, s.unmakeContainer(context.WithoutCancel(ctx), c), s.containerRecords.Delete(c.id))
		s.release(c.name())
		return "", err
	}
	s.addContainer(c)
	s.events.tell(runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, c.id, sb.id, c.createdAt)
	return c.id, nil
}

// makeContainer writes the record first: what follows is found again by it.
func (s *Service) makeContainer(ctx context.Context, c *container, img images.Image) error {
	c.mu.Lock()
	err := s.containerRecords.Put(c.id, c.record())
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_, step := podtrace.Start(ctx, "MountRootfs", "")
	err = s.mountRoot(ctx, c, img)
	step.End(err)
	if err != nil {
		return err
	}
	_, step = podtrace.Start(ctx, "WriteSpec", "")
	err = s.writeSpec(ctx, c, img)
	step.End(err)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := advance(&c.phase, containerCreated, c.what()); err != nil {
		return err
	}
	return s.containerRecords.Put(c.id, c.record())
}

func (s *Service) mountRoot(ctx context.Context, c *container, img images.Image) error {
	mounts, err := s.cfg.Images.PrepareRootfs(ctx, c.id, img, images.RootOptions{Users: c.sandbox.users(), MountPoints: mountPoints(c)})
	if err != nil {
		return fmt.Errorf("make the container's root: %w", err)
	}
	if err := errors.Join(os.Mkdir(c.bundle, 0o700), os.Mkdir(c.rootfs(), 0o711)); err != nil {
		return fmt.Errorf("make the container's bundle: %w", err)
	}
	if err := c.sandbox.openToRoot(c.bundle); err != nil {
		return err
	}
	if err := s.mountFor(c, c.rootfs(), mounts); err != nil {
		return fmt.Errorf("mount the container's root: %w", err)
	}
	return nil
}

func mountPoints(c *container) []images.MountPoint {
	var points []images.MountPoint
	for _, t := range spec.Targets(spec.Input{Config: c.config, Files: c.sandbox.files()}) {
		points = append(points, images.MountPoint(t))
	}
	return points
}

func (s *Service) writeSpec(ctx context.Context, c *container, img images.Image) error {
	files, err := s.filesFor(c)
	if err != nil {
		return err
	}
	ns, err := s.namespacesFor(c)
	if err != nil {
		return err
	}
	for _, m := range c.config.GetMounts() {
		if err := s.checkMapped(c.sandbox, m); err != nil {
			return err
		}
	}
	volumes, err := s.mountImageVolumes(ctx, c)
	if err != nil {
		return err
	}
	_, pod := c.sandbox.state()
	built, err := spec.Build(ctx, spec.Input{
		ID: c.id, SandboxID: c.sandbox.id, Config: c.config, Sandbox: pod, Image: img.Config, Root: c.rootfs(),
		CgroupsPath: c.cgroup(s), Namespaces: ns, Files: files, ImageVolumes: volumes, Host: s.host,
	})
	if err != nil {
		return fmt.Errorf("failed to generate container %q spec: %w", c.id, err)
	}
	u := built.Process.User
	c.user = user{uid: int64(u.UID), gid: int64(u.GID)}
	for _, g := range u.AdditionalGids {
		c.user.groups = append(c.user.groups, int64(g))
	}
	return c.putSpec(built)
}

func (c *container) cgroup(s *Service) string { return filepath.Join(s.cgroup(c.sandbox), c.id) }

func (c *container) specPath() string { return filepath.Join(c.bundle, "config.json") }

func (c *container) putSpec(built *specs.Spec) error {
	b, err := json.Marshal(built)
	if err != nil {
		return fmt.Errorf("encode the container's specification: %w", err)
	}
	if err := os.WriteFile(c.specPath(), b, 0o600); err != nil {
		return fmt.Errorf("write the container's specification: %w", err)
	}
	return nil
}

func (c *container) getSpec() (*specs.Spec, error) {
	b, err := os.ReadFile(c.specPath())
	if err != nil {
		return nil, fmt.Errorf("read the container's specification: %w", err)
	}
	built := &specs.Spec{}
	if err := json.Unmarshal(b, built); err != nil {
		return nil, fmt.Errorf("decode the container's specification: %w", err)
	}
	return built, nil
}

// filesFor are the sandbox's files. A container that brings no /etc/hosts gets
// the sandbox's copy of the host's.
func (s *Service) filesFor(c *container) (spec.Files, error) {
	files := c.sandbox.files()
	for _, m := range c.config.GetMounts() {
		if filepath.Clean(m.GetContainerPath()) == "/etc/hosts" {
			return files, nil
		}
	}
	c.sandbox.hosts.Lock()
	defer c.sandbox.hosts.Unlock()
	if _, err := os.Stat(files.Hosts); err == nil {
		return files, nil
	}
	b, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return files, fmt.Errorf("read the host's /etc/hosts: %w", err)
	}
	if err := os.WriteFile(files.Hosts, b, 0o644); err != nil {
		return files, fmt.Errorf("write the sandbox's /etc/hosts: %w", err)
	}
	return files, c.sandbox.giveToRoot(files.Hosts)
}

// namespacesFor are those that the container joins.
func (s *Service) namespacesFor(c *container) (spec.Namespaces, error) {
	var ns spec.Namespaces
	sb := c.sandbox
	for _, k := range sb.kinds() {
		path := s.cfg.Namespaces.Path(sb.id, k)
		switch k {
		case namespace.Net:
			ns.Net = path
		case namespace.IPC:
			ns.IPC = path
		case namespace.UTS:
			ns.UTS = path
		case namespace.User:
			ns.User = path
		}
	}
	options := c.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if options == nil {
		options = sb.options()
	}
	switch options.GetPid() {
	case runtimeapi.NamespaceMode_NODE:
		ns.HostPID = true
	case runtimeapi.NamespaceMode_POD: // also where nothing is said: as the sandbox has it
		switch sb.options().GetPid() {
		case runtimeapi.NamespaceMode_POD:
			ns.PID = s.cfg.Namespaces.Path(sb.id, namespace.PID)
		case runtimeapi.NamespaceMode_NODE:
			ns.HostPID = true
		}
	case runtimeapi.NamespaceMode_TARGET:
		target, err := s.container(options.GetTargetId())
		if err != nil {
			return ns, fmt.Errorf("invalid target container: %w", err)
		}
		target.mu.Lock()
		defer target.mu.Unlock()
		if target.sandbox != sb || target.phase != containerRunning {
			return ns, fmt.Errorf("%w: the target container %s is not running in this pod", spec.ErrInvalid, target.id)
		}
		ns.PID = fmt.Sprintf("/proc/%d/ns/pid", target.pid)
	}
	return ns, nil
}
