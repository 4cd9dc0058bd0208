// Package spec turns a container's CRI configuration and its image's into an
// OCI runtime specification.
//
// It reads the host (devices, /etc/passwd of the root filesystem, seccomp
// profiles) but changes nothing except for one thing that the CRI asks for: a
// mount's missing host path is made as a directory. Errors that the
// configuration is to blame for wrap ErrInvalid.
package spec

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrInvalid says that the configuration asks for something that can't be, or
// that errand doesn't offer.
var ErrInvalid = errors.New("invalid container configuration")

// version of the runtime specification that is written.
const version = "1.2.0"

// Input is what a specification is made from.
type Input struct {
	ID        string
	SandboxID string
	Config    *runtimeapi.ContainerConfig
	Sandbox   *runtimeapi.PodSandboxConfig
	Image     ocispec.ImageConfig
	// Root is the root filesystem, mounted.
	Root string
	// CgroupsPath is the container's cgroup, from the root of each hierarchy.
	CgroupsPath string
	Namespaces  Namespaces
	Files       Files
	// ImageVolumes are what of images is to be mounted, by the index in
	// Config.Mounts: paths on the host.
	ImageVolumes map[int]string
	Host         *Host
}

// Namespaces are the paths of the namespaces to join. An empty path means a
// new namespace for PID, and the host's for the others.
type Namespaces struct {
	Net, IPC, UTS, PID, User string
	// HostPID joins the host's PID namespace.
	HostPID bool
}

// Files are the sandbox's files that each container gets unless it mounts
// something else there. An empty path leaves the image's.
type Files struct {
	Hosts, ResolvConf, Hostname string
	// Shm is the directory that becomes /dev/shm.
	Shm string
}

// Build returns the specification.
func Build(ctx context.Context, in Input) (*specs.Spec, error) {
	b := &builder{Input: in, linux: in.Config.GetLinux(), security: in.Config.GetLinux().GetSecurityContext()}
	b.spec = &specs.Spec{
		Version:     version,
		Root:        &specs.Root{Path: in.Root, Readonly: b.security.GetReadonlyRootfs()},
		Process:     &specs.Process{},
		Linux:       &specs.Linux{CgroupsPath: in.CgroupsPath, Resources: &specs.LinuxResources{}},
		Annotations: b.annotations(),
	}
	b.namespaces()
	b.resources()
	for _, step := range []func(context.Context) error{
		b.refuse, b.process, b.user, b.capabilities, b.confinement, b.devices, b.mounts,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.spec, nil
}

type builder struct {
	Input
	linux    *runtimeapi.LinuxContainerConfig
	security *runtimeapi.LinuxContainerSecurityContext
	spec     *specs.Spec
}

// refuse rejects what would otherwise be ignored in silence.
func (b *builder) refuse(context.Context) error {
	switch {
	case len(b.Config.GetCDIDevices()) > 0:
		return fmt.Errorf("%w: CDI devices aren't supported by errand's embedded runtime; run errand on a containerd socket for them", ErrInvalid)
	case b.Config.GetWindows() != nil:
		return fmt.Errorf("%w: Windows containers don't run on Linux", ErrInvalid)
	case b.Host.SELinux && b.security.GetSelinuxOptions() != nil:
		// The label alone would only lock the container out of its files: the
		// image's layers and the pod's volumes would have to bear it, too. A host
		// without SELinux has no use for it, there or under any other runtime.
		return fmt.Errorf("%w: SELinux labels (securityContext.seLinuxOptions) aren't supported by errand's embedded runtime; run errand on a containerd socket for them", ErrInvalid)
	}
	return nil
}

// annotations tell OCI hooks and runtimes whose container this is, under the
// keys that containerd has made customary.
func (b *builder) annotations() map[string]string {
	meta := b.Sandbox.GetMetadata()
	return map[string]string{
		"io.kubernetes.cri.container-type":    "container",
		"io.kubernetes.cri.container-name":    b.Config.GetMetadata().GetName(),
		"io.kubernetes.cri.sandbox-id":        b.SandboxID,
		"io.kubernetes.cri.sandbox-name":      meta.GetName(),
		"io.kubernetes.cri.sandbox-namespace": meta.GetNamespace(),
		"io.kubernetes.cri.sandbox-uid":       meta.GetUid(),
	}
}

func (b *builder) namespaces() {
	add := func(t specs.LinuxNamespaceType, path string) {
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
	}
	add(specs.MountNamespace, "")
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		path string
	}{
		{specs.NetworkNamespace, b.Namespaces.Net},
		{specs.IPCNamespace, b.Namespaces.IPC},
		{specs.UTSNamespace, b.Namespaces.UTS},
		{specs.UserNamespace, b.Namespaces.User},
	} {
		if n.path != "" {
			add(n.kind, n.path)
		}
	}
	if !b.Namespaces.HostPID {
		add(specs.PIDNamespace, b.Namespaces.PID)
	}
	if b.Host.CgroupV2 && !b.security.GetPrivileged() {
		add(specs.CgroupNamespace, "")
	}
}

// apply runs one of containerd's spec options, none of which need a client or
// a container for what they are used for here.
func (b *builder) apply(ctx context.Context, opt oci.SpecOpts) error {
	return opt(ctx, nil, &containers.Container{ID: b.ID}, b.spec)
}
