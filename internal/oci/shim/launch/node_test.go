//go:build node

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
	"errand.dev/errand/internal/slowness"
)

// newLauncher is one that is closed at the test's end.
func newLauncher(t *testing.T) *Launcher {
	t.Helper()
	l, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// request is for a container of busybox that runs a script, with output as its stdout and stderr.
func request(t *testing.T, script string, output int) Request {
	t.Helper()
	root := filepath.Join(t.TempDir(), "rootfs")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	busybox := os.Getenv("ERRAND_BUSYBOX")
	if busybox == "" {
		busybox = "/bin/busybox"
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(root, "bin/busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	return Request{
		Launch: &shimapi.Launch{
			Root: root,
			Mounts: []shimapi.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			},
			Masked: []string{"/proc/version"},
			Process: shimapi.Process{
				Args: []string{"/bin/busybox", "sh", "-c", `b() { /bin/busybox "$@"; }; ` + script}, Cwd: "/", Umask: 0o022,
			},
		},
		Files: [3]int{-1, output, output}, Cgroups: &cgroup.Membership{V2: -1},
	}
}

// run runs a container to its end and returns what it has written.
func run(t *testing.T, l *Launcher, script string, edit func(*Request)) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	req := request(t, script, int(w.Fd()))
	if edit != nil {
		edit(&req)
	}
	p, err := l.Start(req)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	reap(t, p.Pid)
	return string(out)
}

func reap(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		t.Fatalf("wait for %d: %v", pid, err)
	}
	return status
}

// unified makes a cgroup in the machine's v2 hierarchy.
func unified(t *testing.T) (fd int, dir string) {
	t.Helper()
	top := "/sys/fs/cgroup/unified"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		top = "/sys/fs/cgroup"
	}
	dir, err := os.MkdirTemp(top, "errand-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, dir
}

func set(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// awaitPopulated waits until there is a process in a cgroup.
func awaitPopulated(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if strings.Contains(string(buf[:n]), "populated 1") {
			return
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, 10_000); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatalf("no process comes to the cgroup: %v", err)
		}
	}
}

type started struct {
	p   Process
	err error
}

// startFrozen starts a container in a frozen cgroup: its process stops before its first step, as one may that is stopped by a
// process of the container that an exec is in, or that waits for a file system.
func startFrozen(t *testing.T, l *Launcher) (dir string, result <-chan started) {
	t.Helper()
	fd, dir := unified(t)
	set(t, filepath.Join(dir, "cgroup.freeze"), "1")
	req := request(t, "exit 5", -1)
	req.Cgroups.V2 = fd
	res := make(chan started, 1)
	go func() {
		p, err := l.Start(req)
		res <- started{p, err}
	}()
	awaitPopulated(t, dir)
	return dir, res
}

// TestBirthThatWaits: the rest of the process goes on, with its garbage collector, however long a birth takes.
func TestBirthThatWaits(t *testing.T) {
	dir, res := startFrozen(t, newLauncher(t))
	collected := make(chan struct{})
	go func() {
		runtime.GC()
		close(collected)
	}()
	select {
	case <-collected:
	case <-time.After(slowness.Times(10 * time.Second)):
		t.Error("a birth that waits stops the world")
	}
	select {
	case s := <-res:
		t.Fatalf("the process isn't frozen: %+v", s)
	default:
	}
	set(t, filepath.Join(dir, "cgroup.freeze"), "0")
	s := <-res
	if s.err != nil {
		t.Fatal(s.err)
	}
	if status := reap(t, s.p.Pid); status.ExitStatus() != 5 {
		t.Errorf("exit status %v", status)
	}
}

// TestBirthThatHangs: it is given up, with nothing left but a child to reap.
func TestBirthThatHangs(t *testing.T) {
	l := newLauncher(t)
	l.patience = 100 * time.Millisecond
	_, res := startFrozen(t, l)
	s := <-res
	if s.err == nil || !strings.Contains(s.err.Error(), "was killed") {
		t.Errorf("%+v", s)
	}
	if pid, err := unix.Wait4(-1, nil, 0, nil); err != nil || pid <= 0 {
		t.Errorf("nothing to reap: %d, %v", pid, err)
	}
}

// TestBirthKilled: a child that is killed before its execve is a container that was killed.
func TestBirthKilled(t *testing.T) {
	dir, res := startFrozen(t, newLauncher(t))
	set(t, filepath.Join(dir, "cgroup.kill"), "1")
	s := <-res
	if s.err != nil {
		t.Fatal(s.err)
	}
	if status := reap(t, s.p.Pid); status.Signal() != unix.SIGKILL {
		t.Errorf("%v", status)
	}
}

// TestNothingStays: neither descriptors nor threads of other namespaces are left after starts and failed starts.
func TestNothingStays(t *testing.T) {
	l := newLauncher(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	req := request(t, "exit 0", int(null.Fd()))
	failures := map[string]func(*Request){
		"no command":   func(r *Request) { r.Process.Args = nil },
		"not found":    func(r *Request) { r.Process.Args = []string{"/nowhere"} },
		"no root":      func(r *Request) { r.Root = "/nowhere" },
		"no bind":      func(r *Request) { r.Mounts = append(r.Mounts, shimapi.Mount{Destination: "/x", Bind: "/nowhere"}) },
		"no namespace": func(r *Request) { r.Join = []shimapi.Namespace{{Type: unix.CLONE_NEWNET, Path: "/nowhere"}} },
		"bad option": func(r *Request) {
			r.Mounts = append(r.Mounts, shimapi.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"nonsense"}})
		},
		"no cwd":       func(r *Request) { r.Process.Cwd = "/bin/busybox" },
		"bad terminal": func(r *Request) { r.Terminal = true },
		"in the child": func(r *Request) {
			r.Cgroups = &cgroup.Membership{V2: -1, V1: []cgroup.V1{{Name: "x", Tasks: int(null.Fd()) + 1000}}}
		},
		"bad proc": func(r *Request) {
			r.Mounts = []shimapi.Mount{{Destination: "/proc", Type: "proc", Options: []string{"nonsense"}}}
		},
	}
	try := func() {
		p, err := l.Start(req)
		if err != nil {
			t.Fatal(err)
		}
		reap(t, p.Pid)
		for name, edit := range failures {
			launch := *req.Launch
			bad := req
			bad.Launch = &launch
			bad.Mounts = bad.Mounts[:len(bad.Mounts):len(bad.Mounts)]
			edit(&bad)
			if p, err := l.Start(bad); err == nil {
				t.Errorf("%s: started as %d", name, p.Pid)
			}
		}
		for { // the children that failed
			if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
				break
			}
		}
	}
	try() // what is opened once
	before := descriptors(t)
	for range 50 / len(failures) * 10 {
		try()
	}
	if after := descriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before: %v, after: %v", before, after)
	}
	checkThreads(t)
}

// descriptors are what the process has open.
func descriptors(t *testing.T) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		list = append(list, e.Name()+"="+target)
	}
	return list
}

// checkThreads compares the namespaces of all threads. One that has just done its work may be about to end.
func checkThreads(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(slowness.Times(10 * time.Second))
	for {
		strange := ""
		for _, ns := range []string{"mnt", "ipc", "pid_for_children", "net"} {
			own, err := os.Readlink("/proc/self/ns/" + ns)
			if err != nil {
				t.Fatal(err)
			}
			tasks, _ := filepath.Glob("/proc/self/task/*")
			for _, task := range tasks {
				if of, err := os.Readlink(filepath.Join(task, "ns", ns)); err == nil && of != own {
					strange += fmt.Sprintf(" %s has %s", task, of)
				}
			}
		}
		if strange == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads stay in other namespaces than %d:%s", os.Getpid(), strange)
		}
		runtime.Gosched()
	}
}

// TestTogether: births and the garbage collector don't disturb each other.
func TestTogether(t *testing.T) {
	l := newLauncher(t)
	req := request(t, "exit 7", -1)
	var wg, collector sync.WaitGroup
	stop := make(chan struct{})
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	pids := make(chan int, 200)
	for range 8 {
		wg.Go(func() {
			for range cap(pids) / 8 {
				launch := *req.Launch
				own := req
				own.Launch = &launch
				p, err := l.Start(own)
				if err != nil {
					t.Error(err)
					return
				}
				pids <- p.Pid
			}
		})
	}
	wg.Wait()
	close(stop)
	collector.Wait()
	close(pids)
	for pid := range pids {
		if status := reap(t, pid); status.ExitStatus() != 7 {
			t.Errorf("%d: %v", pid, status)
		}
	}
}

// TestNotDumpable: starting containers of other users doesn't make the process's memory readable for them.
func TestNotDumpable(t *testing.T) {
	l := newLauncher(t)
	out := run(t, l, "b id -u", func(r *Request) { r.Process.UID, r.Process.GID = 1000, 1000 })
	if out != "1000\n" {
		t.Errorf("%q", out)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable == 1 {
		t.Errorf("dumpable: %d, %v", dumpable, err)
	}
}

// TestUnifiedOnly is a machine that has cgroups of version 2 only.
func TestUnifiedOnly(t *testing.T) {
	l := newLauncher(t)
	fd, dir := unified(t)
	out := run(t, l, "b cat /proc/self/cgroup; b cat /sys/fs/cgroup/cgroup.procs; b ls -d /sys/fs/cgroup/..*; b mkdir /sys/fs/cgroup/x", func(r *Request) {
		r.Cgroups.V2, r.CgroupNamespace = fd, true
		r.Mounts = append(r.Mounts,
			shimapi.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"},
			shimapi.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Set: unix.MOUNT_ATTR_RDONLY},
		)
	})
	for _, want := range []string{"0::/\n", "\n1\n", "Read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, filepath.Base(dir)) {
		t.Errorf("it sees the cgroup's name: %s", out)
	}
}

// TestNullOfTheImage: an image's /dev/null that isn't one isn't opened, and the host's can't be changed by who gets it.
func TestNullOfTheImage(t *testing.T) {
	l := newLauncher(t)
	before := statOf(t, os.DevNull)
	out := run(t, l, "b head -c1 | b wc -c; b chmod 600 /proc/self/fd/0; b chown 7 /proc/self/fd/0", func(r *Request) {
		r.Mounts = r.Mounts[:1] // no /dev
		r.Masked = nil
		if err := os.Mkdir(filepath.Join(r.Root, "dev"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(filepath.Join(r.Root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
			t.Fatal(err)
		}
	})
	if !strings.HasPrefix(out, "0\n") {
		t.Errorf("stdin isn't /dev/null: %s", out)
	}
	after := statOf(t, os.DevNull)
	if before.Mode() != after.Mode() || strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("the host's: %v, then %v; %s", before.Mode(), after.Mode(), out)
	}
}

// TestHostWithPropertyOfItsOwn is about what a container mustn't inherit: it runs in a process whose mounts are shared with their
// kind, which has a session keyring, and which is bound to one processor.
func TestHostWithPropertyOfItsOwn(t *testing.T) {
	if os.Getenv(hostEnv) != "" {
		inspectOnHost(t)
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	one.Set(0)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), hostEnv+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	// What this thread has, the process that it starts has.
	keyring, err := unix.KeyctlJoinSessionKeyring(keyringName)
	if err != nil {
		t.Fatal(err)
	}
	const possessorsOnly = 0x3f000000
	if err := unix.KeyctlSetperm(keyring, possessorsOnly); err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		t.Error(err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

const (
	hostEnv     = "ERRAND_TEST_HOST"
	keyringName = "errand-test-keyring"
)

func inspectOnHost(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	mounts := func() string {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := mounts()
	out := run(t, newLauncher(t), "b cat /proc/self/mountinfo; b cat /proc/keys; b grep Cpus_allowed_list /proc/self/status", func(r *Request) {
		r.Mounts = append(r.Mounts, shimapi.Mount{Destination: "/etc", Bind: "/etc", Recursive: true})
	})
	if !strings.Contains(out, " /etc ") || !strings.Contains(out, "keyring") {
		t.Fatalf("it doesn't see much: %s", out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
			t.Errorf("a mount that others are told of: %s", line)
		}
		if strings.Contains(line, keyringName) {
			t.Errorf("the host's keys: %s", line)
		}
		if cpus, ok := strings.CutPrefix(line, "Cpus_allowed_list:\t"); ok && runtime.NumCPU() == 1 && cpus == "0\n" && onlineCPUs(t) > 1 {
			t.Error("the container is bound to errand's processor")
		}
	}
	if after := mounts(); after != before {
		t.Errorf("mounts on the host before:\n%s\nafter:\n%s", before, after)
	}
}

func onlineCPUs(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "processor\t")
}
