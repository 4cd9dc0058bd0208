//go:build node

package seccompbpf

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/ocitest/host"
)

// childEnv makes the test binary print what its system calls give.
const childEnv = "ERRAND_TEST_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child makes calls that do nothing, with arguments that profiles look at.
func child() {
	const personality32 = 0x0008 // PER_LINUX32
	for name, result := range map[string]func() error{
		"getpid":      func() error { return raw(unix.SYS_GETPID, 0) },
		"personality": func() error { return raw(unix.SYS_PERSONALITY, 0xffffffff) },
		"linux32":     func() error { return raw(unix.SYS_PERSONALITY, personality32) },
		"bpf":         func() error { return raw(unix.SYS_BPF, 1<<20) },
		"clone3":      func() error { return raw(unix.SYS_CLONE3, 0) },
		"alg":         func() error { return raw(unix.SYS_SOCKET, unix.AF_ALG) },
		"futureCall":  func() error { return raw(900, 0) },
		"acct":        func() error { return raw(unix.SYS_ACCT, 1) },
	} {
		fmt.Println(name, result())
	}
}

func raw(number, arg uintptr) error {
	_, _, errno := unix.RawSyscall(number, arg, 0, 0)
	if errno == 0 {
		return nil
	}
	return errno
}

// load is what a launcher does.
func load(f *Filter) error {
	program := unix.SockFprog{Len: f.Len(), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Program[0]))}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// confined runs the child with a filter. The thread that has it forks, and is
// given up.
func confined(t *testing.T, f *Filter) (output string, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return
		}
		if err = load(f); err != nil {
			return
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childEnv+"=1")
		var out []byte
		out, err = cmd.CombinedOutput()
		output = string(out)
	}()
	<-done
	return output, err
}

func TestKernel(t *testing.T) {
	p := defaultProfile(runtime.GOARCH)
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"acct"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))})
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := confined(t, f)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	have := map[string]string{}
	for line := range strings.Lines(out) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), " ")
		have[name] = result
	}
	for name, want := range map[string]string{
		"getpid": "<nil>", "personality": "<nil>", "linux32": "<nil>", "bpf": unix.EPERM.Error(), "clone3": unix.ENOSYS.Error(),
		"alg": unix.EPERM.Error(), "futureCall": unix.ENOSYS.Error(), "acct": unix.EXDEV.Error(),
	} {
		if have[name] != want {
			t.Errorf("%s: %q, want %q", name, have[name], want)
		}
	}
}

func TestKernelKills(t *testing.T) {
	f, err := Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"acct"}, Action: specs.ActKillProcess}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := confined(t, f)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("%v, want the end by SIGSYS: %s", err, out)
	}
}

// The decisions are those of the filter that runc has loaded, call by call.
func TestAsRunc(t *testing.T) {
	// Of no use to runc itself, which goes on under the filter.
	names := []string{"acct", "vmsplice", "accept4", "semop", "semctl", "shmat", "socketcall", "ipc", "set_tls", "no_such_call"}
	named := map[string]*specs.LinuxSeccomp{"default": knownToLibseccomp(defaultProfile(runtime.GOARCH))}
	for i := range 16 {
		p := randomProfiles(names...).Example(i)
		others := slices.DeleteFunc(slices.Collect(maps.Keys(numbersByColumn()[machines[runtime.GOARCH][0].column])), func(n string) bool { return slices.Contains(names, n) })
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: others, Action: specs.ActAllow})
		named[fmt.Sprint("random", i)] = knownToLibseccomp(p)
	}
	h := host.New(t)
	compared := 0
	for _, name := range slices.Sorted(maps.Keys(named)) {
		p := named[name]
		f, err := Compile(p)
		if err != nil {
			continue // runc has the last word
		}
		compared++
		theirs := runcFilter(t, h, p)
		if name == "default" {
			t.Logf("default profile: %d instructions, runc's has %d", f.Len(), len(theirs)/instructionSize)
		}
		for c := range func(yield func(call) bool) { calls(p, yield) } {
			if !ofMachine(c) {
				continue
			}
			if have, want := run(f.Program, c), run(theirs, c); have != want {
				text, _ := json.Marshal(p)
				t.Errorf("%s: call %d (%#x) of %#x with %#x: %#x, runc has %#x; profile %s", name, c.number, c.number, c.arch, c.args, have, want, text)
				break
			}
		}
	}
	t.Logf("%d profiles compared", compared)
	if compared < 8 {
		t.Error("too few profiles were compared")
	}
}

// ofMachine leaves out what only another machine's kernel says of a call: runc
// has decisions for it, without effect.
func ofMachine(c call) bool {
	if slices.ContainsFunc(machines[runtime.GOARCH], func(a *arch) bool { return a.audit == c.arch }) {
		return true
	}
	return !slices.ContainsFunc([]*arch{archAMD64, archX86, archARM64, archARM}, func(a *arch) bool { return a.audit == c.arch })
}

// knownToLibseccomp leaves out the calls that libseccomp 2.5.4, the oldest that
// runc is built with, doesn't have.
func knownToLibseccomp(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	const last = 450 // set_mempolicy_home_node
	newer := []string{"uretprobe", "uprobe"}
	for i, s := range p.Syscalls {
		p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool {
			n, ok := archX86.number(name)
			return ok && n > last || slices.Contains(newer, name)
		})
	}
	return p
}

// runcFilter returns the program that runc loads for a profile. The process
// that waits for runc start has it already.
func runcFilter(t *testing.T, h *host.Host, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	id := h.ID()
	bundle := h.Bundle(id, []string{"true"}, func(s *specs.Spec) {
		s.Linux.Seccomp = p
		s.Linux.CgroupsPath = h.CgroupParent + "-" + id // runc deletes one directory only
	})
	runc := func(args ...string) {
		t.Helper()
		cmd := exec.Command(host.Runc(t), append([]string{"--root", filepath.Join(h.Dir, "run", "runc")}, args...)...)
		log, err := os.Create(filepath.Join(h.Dir, "runc.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log // a pipe would be the container's, too
		if err := cmd.Run(); err != nil {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("runc %q: %v: %s; seccomp %+v", args, err, text, p)
		}
	}
	pidFile := filepath.Join(h.Dir, "pid")
	runc("create", "--bundle", bundle, "--pid-file", pidFile, id)
	defer runc("delete", "--force", id)
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	program, err := filterOf(pid)
	if err != nil {
		t.Fatalf("read the filter of process %d: %v", pid, err)
	}
	return program
}

// filterOf reads the filter that a process got last.
func filterOf(pid int) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return nil, fmt.Errorf("seize: %w", err)
	}
	defer unix.PtraceDetach(pid) // of a process that is deleted next
	if err := unix.PtraceInterrupt(pid); err != nil {
		return nil, fmt.Errorf("interrupt: %w", err)
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return nil, fmt.Errorf("wait: %w", err)
	}
	get := func(buffer unsafe.Pointer) (int, error) {
		n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(buffer), 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
	n, err := get(nil)
	if err != nil {
		return nil, fmt.Errorf("count instructions: %w", err)
	}
	program := make([]byte, n*instructionSize)
	_, err = get(unsafe.Pointer(&program[0]))
	return program, err
}
