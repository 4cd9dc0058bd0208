package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/oci"
)

// A PID namespace ends with its first process, so one that containers share
// needs a process that outlasts them all. It runs as a container like any
// other, with nothing in its root but itself; its ID is the sandbox's.

// runHolder starts it and pins its PID namespace.
func (s *Service) runHolder(ctx context.Context, sb *sandbox) error {
	bundle := filepath.Join(sb.dir, "holder")
	program := filepath.Join(bundle, "pause")
	// It is the holder's root, too, which crun opens as root of the pod.
	if err := errors.Join(os.MkdirAll(bundle, 0o755), os.Chmod(bundle, 0o755)); err != nil {
		return fmt.Errorf("make the process namespace's holder: %w", err)
	}
	if err := os.WriteFile(program, nil, 0o555); err != nil {
		return fmt.Errorf("make the process namespace's holder: %w", err)
	}
	// Its root is a directory of the host's, where root of the pod can make nothing.
	for _, dir := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(bundle, dir), 0o755); err != nil {
			return fmt.Errorf("make the process namespace's holder: %w", err)
		}
	}
	bind := mount.Mount{Type: "bind", Source: s.cfg.HolderCommand[0], Options: []string{"rbind", "ro"}}
	if err := s.cfg.Mounter.Mount(program, []mount.Mount{bind}); err != nil {
		return fmt.Errorf("make the process namespace's holder: %w", err)
	}
	config, err := json.Marshal(s.holderSpec(sb, bundle))
	if err != nil {
		return fmt.Errorf("make the process namespace's holder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return fmt.Errorf("make the process namespace's holder: %w", err)
	}
	pid, err := s.cfg.Runtime.Run(ctx, oci.RunRequest{ID: sb.id, Bundle: bundle, Handler: sb.handler})
	if err != nil {
		return fmt.Errorf("start the process namespace's holder: %w", err)
	}
	return s.cfg.Namespaces.PinProcess(sb.id, namespace.PID, pid)
}

func (s *Service) holderSpec(sb *sandbox, root string) *specs.Spec {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}
	types := map[namespace.Kind]specs.LinuxNamespaceType{
		namespace.Net: specs.NetworkNamespace, namespace.IPC: specs.IPCNamespace, namespace.UTS: specs.UTSNamespace,
		namespace.User: specs.UserNamespace,
	}
	for _, k := range sb.kinds() {
		ns = append(ns, specs.LinuxNamespace{Type: types[k], Path: s.cfg.Namespaces.Path(sb.id, k)})
	}
	nobody := uint32(65535)
	if users := sb.users(); users != nil {
		nobody = min(nobody, users.Users.Length-1, users.Groups.Length-1)
	}
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: root, Readonly: true},
		Process: &specs.Process{
			Args: append([]string{"/pause"}, s.cfg.HolderCommand[1:]...), Cwd: "/",
			User: specs.User{UID: nobody, GID: nobody}, NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
		},
		Linux: &specs.Linux{
			Namespaces: ns, CgroupsPath: filepath.Join(s.cgroup(sb), sb.id), Resources: &specs.LinuxResources{},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys"},
		},
	}
}
