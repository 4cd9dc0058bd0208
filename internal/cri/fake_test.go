package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/oci"
)

// world is a host in memory: what outlives a runtime that is killed.
type world struct {
	t   *testing.T
	dir string

	mu         sync.Mutex
	containers map[string]*oci.Status // the parent's
	starts     map[string]int
	roots      map[string]bool
	pins       map[string]map[namespace.Kind]bool
	mounts     map[string]bool
	cgroups    map[string]bool
	noUsers    error // why there are no user namespaces
	// changedCgroups were limited after they were made, killed or removed.
	changedCgroups []string
	changed        chan struct{} // closed and replaced when a container ends
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, dir: t.TempDir(), containers: map[string]*oci.Status{}, starts: map[string]int{}, roots: map[string]bool{},
		pins: map[string]map[namespace.Kind]bool{}, mounts: map[string]bool{}, cgroups: map[string]bool{}, changed: make(chan struct{}),
	}
}

// exit ends a container as its process would.
func (w *world) exit(id string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exitLocked(id, code)
}

func (w *world) exitLocked(id string, code int) {
	c := w.containers[id]
	if c == nil || c.State == oci.Exited {
		return
	}
	c.State, c.ExitCode, c.ExitedAt = oci.Exited, code, time.Now()
	close(w.changed)
	w.changed = make(chan struct{})
}

// life is one runtime in a world. Every call that leaves it is counted, before
// and after its effect; at the chosen count it dies: that call and all later
// ones never return, and nothing of what they would have done is done.
type fakeLife struct {
	*world
	mu    sync.Mutex
	count int
	dieAt int // 0 for never
	dead  chan struct{}
	held  map[string]netip.Addr
	err   error
}

func (w *world) life(dieAt int) *fakeLife {
	return &fakeLife{world: w, dieAt: dieAt, dead: make(chan struct{}), held: map[string]netip.Addr{}}
}

func (l *fakeLife) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

func (l *fakeLife) step() {
	l.mu.Lock()
	l.count++
	if l.count == l.dieAt {
		close(l.dead)
	}
	l.mu.Unlock()
	if l.isDead() {
		runtime.Goexit()
	}
}

// do is a call with an effect on the world.
func (l *fakeLife) do(effect func() error) error {
	l.step()
	l.world.mu.Lock()
	err := effect()
	l.world.mu.Unlock()
	l.step()
	return err
}

func (l *fakeLife) config() Config {
	return Config{
		Root: filepath.Join(l.dir, "cri"), RuntimeDir: filepath.Join(l.dir, "run"), CgroupParent: "/errand",
		Handlers: []string{"runc"}, HolderCommand: []string{"/holder"}, Version: "test",
		Runtime: fakeRuntime{l}, Images: fakeImages{l}, Network: fakeNetwork{l}, Cgroups: fakeCgroups{l},
		Namespaces: fakeNamespaces{l}, Mounter: fakeMounter{l},
	}
}

type fakeRuntime struct{ *fakeLife }

func (r fakeRuntime) Run(_ context.Context, req oci.RunRequest) (int, error) {
	err := r.do(func() error {
		if _, ok := r.containers[req.ID]; ok {
			return oci.ErrExists
		}
		if _, err := os.Stat(filepath.Join(req.Bundle, "config.json")); err != nil {
			return err
		}
		if r.runs(req, "no-such-command") {
			return &oci.StartError{ID: req.ID, Message: "no such command"}
		}
		r.starts[req.ID]++
		if r.runs(req, "parent-dies") {
			r.containers[req.ID] = &oci.Status{ID: req.ID, State: oci.Exited, ExitCode: 137, Reason: oci.ReasonShimLost}
			return oci.ErrParentLost
		}
		r.containers[req.ID] = &oci.Status{ID: req.ID, Pid: 42, State: oci.Running, StartedAt: time.Now()}
		return nil
	})
	return 42, err
}

// runs says whether that is the container's command.
func (fakeRuntime) runs(req oci.RunRequest, command string) bool {
	built, err := (&container{bundle: req.Bundle}).getSpec()
	return err == nil && built.Process.Args[0] == command
}

func (r fakeRuntime) Signal(_ context.Context, id string, sig syscall.Signal, _ bool) error {
	return r.do(func() error {
		if _, ok := r.containers[id]; !ok {
			return oci.ErrNotFound
		}
		r.exitLocked(id, 128+int(sig))
		return nil
	})
}

func (r fakeRuntime) Delete(_ context.Context, id string) error {
	return r.do(func() error { delete(r.containers, id); return nil })
}

func (r fakeRuntime) Update(context.Context, string, *specs.LinuxResources) error { return nil }
func (r fakeRuntime) ReopenLog(context.Context, string) error                     { return nil }
func (r fakeRuntime) Exec(context.Context, string, oci.ExecRequest) (oci.Process, error) {
	return nil, oci.ErrNotRunning
}
func (r fakeRuntime) Attach(context.Context, string, oci.AttachRequest) (oci.Attachment, error) {
	return nil, oci.ErrNotRunning
}

func (r fakeRuntime) List(context.Context) (list []oci.Status, err error) {
	err = r.do(func() error {
		for _, c := range r.containers {
			list = append(list, *c)
		}
		return r.err
	})
	return list, err
}

func (r fakeRuntime) Events(ctx context.Context) (<-chan oci.Event, error) {
	out := make(chan oci.Event)
	go func() {
		defer close(out)
		told := map[string]bool{}
		for {
			r.world.mu.Lock()
			var news []oci.Event
			for id, c := range r.containers {
				if c.State == oci.Exited && !told[id] {
					told[id] = true
					news = append(news, oci.Event{Status: *c})
				}
			}
			changed := r.changed
			r.world.mu.Unlock()
			for _, e := range news {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				case <-r.dead:
					<-ctx.Done()
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-r.dead:
				<-ctx.Done()
				return
			}
		}
	}()
	return out, nil
}

func (r fakeRuntime) Err() error { return context.Canceled }

type fakeImages struct{ *fakeLife }

func (i fakeImages) Get(_ context.Context, ref string) (images.Image, error) {
	if ref != "busybox" {
		return images.Image{}, errdefs.ErrNotFound
	}
	return images.Image{ID: "sha256:1", Config: ocispec.ImageConfig{Cmd: []string{"sh"}}}, nil
}

func (i fakeImages) PrepareRootfs(_ context.Context, id string, _ images.Image, _ images.RootOptions) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "bind", Source: "/"}}, i.do(func() error { i.roots[id] = true; return nil })
}

func (i fakeImages) PrepareImageVolume(context.Context, string, string, images.Image) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "bind", Source: "/"}}, i.do(func() error { return nil })
}

func (i fakeImages) RemoveRootfs(_ context.Context, id string) error {
	return i.do(func() error {
		for target := range i.mounts {
			if strings.HasPrefix(target, filepath.Join(i.dir, "run/bundles", id)) {
				i.t.Errorf("the root of %s was removed while %s is mounted", id, target)
			}
		}
		delete(i.roots, id)
		return nil
	})
}

func (i fakeImages) ListRootfs(context.Context) []string {
	i.world.mu.Lock()
	defer i.world.mu.Unlock()
	return slices.Collect(maps.Keys(i.roots))
}

func (i fakeImages) RootfsUsage(context.Context, string) (images.Usage, error) {
	return images.Usage{}, errdefs.ErrNotFound
}

// fakeNetwork keeps addresses in the life: a new one knows only those restored.
type fakeNetwork struct{ *fakeLife }

func (n fakeNetwork) Reserve(id string) (addr netip.Addr, err error) {
	err = n.do(func() error {
		for i := byte(2); ; i++ {
			addr = netip.AddrFrom4([4]byte{10, 0, 0, i})
			if !slices.Contains(slices.Collect(maps.Values(n.held)), addr) {
				n.held[id] = addr
				return nil
			}
		}
	})
	return addr, err
}

func (n fakeNetwork) Attach(string, *network.Pod, netip.Addr, []network.PortMapping) error {
	return n.do(func() error { return nil })
}

func (n fakeNetwork) Restore(id string, addr netip.Addr, _ []network.PortMapping) error {
	return n.do(func() error { n.held[id] = addr; return nil })
}

func (n fakeNetwork) Release(id string) error {
	return n.do(func() error {
		if n.pins[id][namespace.Net] {
			n.t.Errorf("the address of %s was freed while its network is there", id)
		}
		delete(n.held, id)
		return nil
	})
}

func (n fakeNetwork) Usage(string) (network.Usage, error) { return network.Usage{}, nil }

type fakeCgroups struct{ *fakeLife }

func (fakeCgroups) V2() bool     { return true }
func (fakeCgroups) Root() string { return "/nonexistent" }
func (c fakeCgroups) Create(path string, limits cgroups.Limits) error {
	if limits != nil {
		if err := c.Update(path, limits); err != nil {
			return err
		}
	}
	return c.do(func() error { c.cgroups[path] = true; return nil })
}
func (c fakeCgroups) AwaitEmpty(string, time.Duration) bool { return false }
func (c fakeCgroups) Update(path string, _ cgroups.Limits) error {
	return c.do(func() error { c.changedCgroups = append(c.changedCgroups, path); return nil })
}
func (c fakeCgroups) Kill(path string) error {
	return c.do(func() error { c.changedCgroups = append(c.changedCgroups, path); return nil })
}
func (c fakeCgroups) Remove(path string) error {
	return c.do(func() error {
		c.changedCgroups = append(c.changedCgroups, path)
		delete(c.cgroups, path)
		return nil
	})
}
func (c fakeCgroups) Detail(path string) (*cgroups.Detail, error) {
	return nil, cgroups.ErrNotFound
}
func (c fakeCgroups) Processes(string) ([]int, error)           { return nil, nil }
func (c fakeCgroups) Stats(path string) (*cgroups.Stats, error) { return nil, cgroups.ErrNotFound }

type fakeNamespaces struct{ *fakeLife }

func (n fakeNamespaces) Path(id string, k namespace.Kind) string {
	return filepath.Join(n.dir, "run", string(k), id)
}

func (n fakeNamespaces) Create(id string, spec namespace.Spec) error {
	err := n.do(func() error {
		n.pins[id] = map[namespace.Kind]bool{}
		for _, k := range spec.Kinds {
			n.pins[id][k] = true
		}
		if spec.Users != nil {
			n.pins[id][namespace.User] = true
		}
		return nil
	})
	if err == nil && spec.Inside != nil {
		err = spec.Inside()
	}
	return err
}

func (n fakeNamespaces) PinProcess(id string, k namespace.Kind, _ int) error {
	return n.do(func() error {
		if n.pins[id] == nil {
			n.pins[id] = map[namespace.Kind]bool{}
		}
		n.pins[id][k] = true
		return nil
	})
}

func (n fakeNamespaces) Pinned(id string, k namespace.Kind) bool {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return n.pins[id][k]
}

func (n fakeNamespaces) Remove(id string) error {
	return n.do(func() error { delete(n.pins, id); return nil })
}

func (n fakeNamespaces) List() ([]string, error) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return slices.Collect(maps.Keys(n.pins)), nil
}

func (n fakeNamespaces) ProbeUsers(string, string) error { return n.noUsers }

func (n fakeNamespaces) Run(string, func() error) error { return fmt.Errorf("no network in memory") }

type fakeMounter struct{ *fakeLife }

func (m fakeMounter) Mount(target string, _ []mount.Mount) error {
	return m.do(func() error {
		if m.mounts[target] {
			m.t.Errorf("%s was mounted twice", target)
		}
		m.mounts[target] = true
		return nil
	})
}

func (m fakeMounter) MountMapped(target string, mounts []mount.Mount, userns, scratch string) error {
	err := m.do(func() error { m.mounts[scratch] = true; return nil })
	if err == nil {
		err = m.Mount(target, mounts)
	}
	return errors.Join(err, m.Unmount(scratch))
}

func (m fakeMounter) Unmount(target string) error {
	return m.do(func() error { delete(m.mounts, target); return nil })
}

func podConfig(name string, edits ...func(*runtimeapi.PodSandboxConfig)) *runtimeapi.PodSandboxConfig {
	c := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name}, Hostname: name,
		DnsConfig: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/errand/" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
	for _, e := range edits {
		e(c)
	}
	return c
}

func containerConfig(name string, command ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "busybox"}, Command: command,
	}
}
