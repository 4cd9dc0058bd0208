//go:build node

package host

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Host makes containers for one test.
type Host struct {
	t testing.TB
	// Dir is a short directory of the test's own.
	Dir string
	// CgroupParent is a cgroup path of the test's own; containers get cgroups below it.
	CgroupParent string
	rootfs       string
	last         atomic.Int64
}

// New returns a Host that removes everything at the end of the test, after checking that nothing is left.
func New(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("containers need root")
	}
	// Not t.TempDir: its path is too long for a socket.
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{t: t, Dir: dir, CgroupParent: "/errand-test-" + filepath.Base(dir)}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.checkLeaks)
	h.rootfs = h.makeRootfs()
	return h
}

// Runc is the path of the OCI runtime to test with.
func Runc(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ERRAND_RUNC"); path != "" {
		return path
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err == nil {
		if path := filepath.Join(strings.TrimSpace(string(out)), "bin", "runc"); exists(path) {
			return path
		}
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("no runc: set $ERRAND_RUNC, or make build puts one into bin/")
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (h *Host) makeRootfs() string {
	h.t.Helper()
	busybox := os.Getenv("ERRAND_BUSYBOX")
	if busybox == "" {
		busybox = "/bin/busybox"
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		h.t.Fatalf("no static busybox, set $ERRAND_BUSYBOX: %v", err)
	}
	root := filepath.Join(h.Dir, "rootfs")
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		h.must(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	h.must(os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755))
	h.must(os.WriteFile(filepath.Join(root, "bin/notexec"), nil, 0o644))
	for _, applet := range []string{"sh", "echo", "sleep", "cat", "dd", "printf", "kill", "stty", "true", "head", "yes", "seq", "tail", "tr"} {
		h.must(os.Symlink("busybox", filepath.Join(root, "bin", applet)))
	}
	return root
}

func (h *Host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// Rootfs is the directory of the containers' root file system, which all of them have in common.
func (h *Host) Rootfs() string { return h.rootfs }

// ID returns a new container ID.
func (h *Host) ID() string { return fmt.Sprintf("c%d", h.last.Add(1)) }

// Log returns the path for a container's log.
func (h *Host) Log(id string) string { return filepath.Join(h.Dir, id+".log") }

// Cgroup returns the cgroup path of a container.
func (h *Host) Cgroup(id string) string { return h.CgroupParent + "/" + id }

// Bundle makes a container's bundle that executes args, changed by edits.
func (h *Host) Bundle(id string, args []string, edits ...func(*specs.Spec)) string {
	h.t.Helper()
	spec := &specs.Spec{
		Version: specs.Version,
		Process: Process(args...),
		Root:    &specs.Root{Path: h.rootfs, Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			CgroupsPath: h.Cgroup(id),
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}},
		},
	}
	for _, edit := range edits {
		edit(spec)
	}
	dir := filepath.Join(h.Dir, "bundle-"+id)
	h.must(os.MkdirAll(dir, 0o755))
	data, err := json.Marshal(spec)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644))
	return dir
}

// Process is a minimal OCI process.
func Process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"},
	}}
}

// HostPID makes a container share the host's PID namespace, so that the end of its first process ends nobody else.
func HostPID(spec *specs.Spec) {
	var rest []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			rest = append(rest, ns)
		}
	}
	spec.Linux.Namespaces = rest
}

// Terminal gives a container's first process a terminal.
func Terminal(spec *specs.Spec) { spec.Process.Terminal = true }
