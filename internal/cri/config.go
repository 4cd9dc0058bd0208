package cri

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/oci"
)

// Config is what a Service is made from.
type Config struct {
	// Root is the directory of the records, in the data directory.
	Root string
	// RuntimeDir is the directory of bundles, sandboxes' files and pinned
	// namespaces; it should be on a tmpfs, since none of it outlives a boot.
	RuntimeDir string
	// CgroupParent is the cgroup of sandboxes that name none.
	CgroupParent string
	// Handlers are the names of the OCI runtimes that Runtime offers, as
	// RuntimeClass.handler names them. The empty name is always the default.
	Handlers []string
	// HolderCommand is a static program, and its arguments, that does nothing
	// but reap: the first process of a PID namespace that a pod's containers
	// share. Without it such pods are refused.
	HolderCommand []string
	// StartConcurrency bounds how many containers are started at once; 0 means
	// twice the CPUs, beyond which only the latency grows.
	StartConcurrency int
	// LogMaxSize in bytes is when a container's log goes on in a new file, of
	// which LogMaxFiles are kept (at least 2); 0 lets logs grow.
	LogMaxSize  int64
	LogMaxFiles int
	// Version is errand's, for people.
	Version string

	Runtime oci.Runtime
	Images  ImageStore
	Network PodNetwork
	Cgroups CgroupTree
	// Namespaces and Mounter are the host's; nil means the real ones.
	Namespaces Namespaces
	Mounter    Mounter
	// Clock times stop grace periods and gives statuses their times; nil means
	// the real one.
	Clock clock.WithTicker
}

// ImageStore is what the runtime needs of package images; its Store documents
// the methods.
type ImageStore interface {
	Get(ctx context.Context, ref string) (images.Image, error)
	PrepareRootfs(ctx context.Context, containerID string, img images.Image, o images.RootOptions) ([]mount.Mount, error)
	PrepareImageVolume(ctx context.Context, containerID, name string, img images.Image) ([]mount.Mount, error)
	RemoveRootfs(ctx context.Context, containerID string) error
	ListRootfs(ctx context.Context) []string
	RootfsUsage(ctx context.Context, containerID string) (images.Usage, error)
}

// PodNetwork is what the runtime needs of package network; its Manager
// documents the methods.
type PodNetwork interface {
	Reserve(id string) (netip.Addr, error)
	Attach(id string, pod *network.Pod, addr netip.Addr, ports []network.PortMapping) error
	Restore(id string, addr netip.Addr, ports []network.PortMapping) error
	Release(id string) error
	Usage(id string) (network.Usage, error)
}

// CgroupTree is what the runtime needs of package cgroups; its Tree documents
// the methods.
type CgroupTree interface {
	V2() bool
	Root() string
	Create(path string, limits cgroups.Limits) error
	Update(path string, limits cgroups.Limits) error
	Kill(path string) error
	Remove(path string) error
	AwaitEmpty(path string, patience time.Duration) (waited bool)
	Stats(path string) (*cgroups.Stats, error)
	Detail(path string) (*cgroups.Detail, error)
	Processes(path string) ([]int, error)
}

// Namespaces is what the runtime needs of package namespace; its Dir documents
// the methods.
type Namespaces interface {
	Path(id string, k namespace.Kind) string
	Create(id string, spec namespace.Spec) error
	PinProcess(id string, k namespace.Kind, pid int) error
	Pinned(id string, k namespace.Kind) bool
	Remove(id string) error
	List() ([]string, error)
	Run(id string, f func() error) error
	ProbeUsers(files, bundles string) error
}

// Mounter mounts and unmounts on the host.
type Mounter interface {
	// Mount mounts all of mounts at target, which exists.
	Mount(target string, mounts []mount.Mount) error
	// MountMapped does the same, but that all files appear with the owners that a
	// user namespace maps theirs to, whose file is userns. scratch is a path for
	// mounts in between, of which none is left unless this process ends; it doesn't
	// exist before and after.
	MountMapped(target string, mounts []mount.Mount, userns, scratch string) error
	// Unmount takes everything off target. That nothing is mounted there, or
	// that it doesn't exist, is no error.
	Unmount(target string) error
}

func (c *Config) complete() error {
	var errs []error
	for name, dir := range map[string]string{"Root": c.Root, "RuntimeDir": c.RuntimeDir, "CgroupParent": c.CgroupParent} {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("%s %q is no absolute path", name, dir))
		}
	}
	if c.Runtime == nil || c.Images == nil || c.Network == nil || c.Cgroups == nil {
		errs = append(errs, errors.New("the fields Runtime, Images, Network and Cgroups must be set"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	if c.StartConcurrency == 0 {
		c.StartConcurrency = 2 * runtime.NumCPU()
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Mounter == nil {
		c.Mounter = hostMounter{}
	}
	if c.Namespaces == nil {
		dir, err := namespace.Open(c.RuntimeDir)
		if err != nil {
			return err
		}
		c.Namespaces = dir
	}
	return nil
}
