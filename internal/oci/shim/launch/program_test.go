package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

func TestCandidates(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		env     []string
		want    []string
	}{
		"absolute":            {"/bin/x", []string{"PATH=/usr/bin"}, []string{"/bin/x"}},
		"relative to the cwd": {"./x", []string{"PATH=/usr/bin"}, []string{"./x"}},
		"in the path":         {"x", []string{"A=b", "PATH=/usr/bin:/bin/"}, []string{"/usr/bin/x", "/bin/x"}},
		"the last PATH":       {"x", []string{"PATH=/a", "PATH=/b"}, []string{"/b/x"}},
		"relative places":     {"x", []string{"PATH=.::bin:/b"}, []string{"/b/x"}},
		"empty path":          {"x", []string{"PATH="}, nil},
		"no path":             {"x", nil, nil},
		"no name":             {"", []string{"PATH=/bin"}, nil},
		"not PATH":            {"x", []string{"XPATH=/bin"}, nil},
	} {
		got := candidates(&shimapi.Process{Args: []string{tc.command}, Env: tc.env})
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestExecFailed(t *testing.T) {
	for _, tc := range []struct {
		command string
		errno   syscall.Errno
		want    string
	}{
		{"x", unix.ENOENT, `exec: "x": executable file not found in $PATH`},
		{"x", unix.EACCES, `exec: "x": executable file not found in $PATH`},
		{"x", unix.ENOEXEC, `exec: "x": exec format error`},
		{"/x", unix.ENOENT, `exec: "/x": stat /x: no such file or directory`},
		{"/x", unix.EACCES, `exec: "/x": permission denied`},
		{"/x", unix.E2BIG, `exec: "/x": argument list too long`},
	} {
		for deed, words := range map[deed]string{
			creating: "OCI runtime create failed: unable to start container process: error during container init: ",
			execing:  "OCI runtime exec failed: exec failed: unable to start container process: ",
		} {
			err := deed.explain(execFailed(tc.command, tc.errno))
			var known *shimapi.Error
			if !errors.As(err, &known) || known.Code != shimapi.CodeStart || known.Message != words+tc.want {
				t.Errorf("%s, %v: %v", tc.command, tc.errno, err)
			}
		}
	}
}

func TestExplainTheMachinesFaults(t *testing.T) {
	for deed, want := range map[deed]string{creating: "create failed: clone3: cannot allocate memory", execing: "exec failed: clone3: cannot allocate memory"} {
		err := deed.explain(failed(fmt.Errorf("clone3: %w", unix.ENOMEM)))
		var known *shimapi.Error
		if !errors.As(err, &known) || known.Code != shimapi.CodeRuntime || known.Message != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := creating.explain(nil); err != nil {
		t.Errorf("a success: %v", err)
	}
}

func TestCheckRefusesWhatCStringsCannotHold(t *testing.T) {
	for name, p := range map[string]*shimapi.Process{
		"argument":    {Args: []string{"a\x00b"}},
		"environment": {Args: []string{"a"}, Env: []string{"A=\x00"}},
		"cwd":         {Args: []string{"a"}, Cwd: "/\x00"},
		"no command":  {},
	} {
		b := &child{program: &program{}, process: p}
		var known *shimapi.Error
		if err := b.check(); !errors.As(err, &known) || known.Code != shimapi.CodeStart {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHome(t *testing.T) {
	root, dir := opened(t)
	l := &Launcher{proc: procFD(t)}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(dir, "etc/passwd")
	lines := "# comment\nroot:x:0:0:root:/root:/bin/sh\nshort:x:5\nrel:x:6:6::home:/bin/sh\nu:x:1000:1000::/home/u:\nu2:x:1000:1::/other:\n"
	for name, tc := range map[string]struct {
		make func() error
		uid  uint32
		want string
	}{
		"root":         {func() error { return os.WriteFile(passwd, []byte(lines), 0o600) }, 0, "/root"},
		"the first":    {func() error { return os.WriteFile(passwd, []byte(lines), 0o600) }, 1000, "/home/u"},
		"short line":   {func() error { return os.WriteFile(passwd, []byte(lines), 0o600) }, 5, "/"},
		"relative":     {func() error { return os.WriteFile(passwd, []byte(lines), 0o600) }, 6, "/"},
		"unknown":      {func() error { return os.WriteFile(passwd, []byte(lines), 0o600) }, 7, "/"},
		"none":         {func() error { return nil }, 0, "/"},
		"a directory":  {func() error { return os.Mkdir(passwd, 0o755) }, 0, "/"},
		"a FIFO":       {func() error { return unix.Mkfifo(passwd, 0o600) }, 0, "/"},
		"a link out":   {func() error { return os.Symlink("../../../../../../etc/passwd", passwd) }, 0, "/"},
		"a magic link": {func() error { return os.Symlink("/proc/self/root/etc/passwd", passwd) }, 0, "/"},
		"an endless one": {func() error {
			return os.WriteFile(passwd, []byte(strings.Repeat("x", 2*maxPasswd)+"\n"+lines), 0o600)
		}, 0, "/"},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(passwd)
			if err := tc.make(); err != nil {
				t.Fatal(err)
			}
			got := l.withHome(root, []string{"A=b"}, tc.uid)
			if diff := cmp.Diff([]string{"A=b", "HOME=" + tc.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := l.withHome(root, []string{"HOME=/x"}, 0); len(got) != 1 {
		t.Errorf("one that is set: %q", got)
	}
}

// TestProgram: arguments come to the calls as they are, and results of earlier calls are marked as such.
func TestProgram(t *testing.T) {
	p := &program{}
	first := p.add("one", 1, 7, uintptr(8), uint64(9), "text", pin(p, new(uint64)), pinAll(p, []uint32(nil)))
	second := p.add("two", 2, first, 5, first)
	p.last().may = true
	p.seal()
	if first != 1 || second != 2 || len(p.results) != 3 {
		t.Fatalf("%v, %v, %d results", first, second, len(p.results))
	}
	c := p.calls[0]
	if c.args[0] != 7 || c.args[1] != 8 || c.args[2] != 9 || c.args[5] != 0 || c.results != 0 {
		t.Errorf("%+v", c)
	}
	if p.keep[1].([]byte)[4] != 0 || c.args[3] != uintptr(unsafe.Pointer(&p.keep[1].([]byte)[0])) {
		t.Error("the string isn't there, or doesn't end")
	}
	if c := p.calls[1]; c.results != 0b101 || !c.may {
		t.Errorf("%+v", c)
	}
	p.failed, p.errno = 2, unix.EPERM
	if err := p.failure(); err == nil || err.Error() != "two: operation not permitted" || !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// TestOverlongFilter: a filter that is too long isn't cut down to one that the kernel takes.
func TestOverlongFilter(t *testing.T) {
	l := &Launcher{filters: map[string]*Filter{}}
	ret := make([]byte, sizeofFilter)
	binary.NativeEndian.PutUint16(ret, 6) // BPF_RET
	many := strings.Repeat(string(ret), 1<<16+1)
	if f := l.Filter([]byte(many), 0); f.prog.Len <= unix.BPF_MAXINSNS {
		t.Errorf("%d instructions are left", f.prog.Len)
	}
	if l.Filter(nil, 0) != nil {
		t.Error("a filter of nothing")
	}
	one, again, other := l.Filter(ret, 0), l.Filter(ret, 0), l.Filter(ret, 1)
	if one != again || one == other {
		t.Error("the same filter isn't remembered, or for something else")
	}
	for i := range 3 * maxFilters {
		binary.NativeEndian.PutUint32(ret[4:], uint32(i))
		l.Filter(ret, 0)
	}
	if len(l.filters) > maxFilters {
		t.Errorf("%d filters are remembered", len(l.filters))
	}
}

// TestRunInAChild runs programs of harmless calls in real children.
func TestRunInAChild(t *testing.T) {
	p := &program{}
	p.add("fails, but may", unix.SYS_CLOSE, -1)
	p.last().may = true
	fd := p.add("open, or skip two", unix.SYS_OPENAT, -100, "/nowhere", 0, 0)
	p.last().skip = 2
	p.add("skipped", unix.SYS_CLOSE, fd)
	p.add("skipped", unix.SYS_CLOSE, -1)
	dup := p.add("dup", unix.SYS_DUP, 1)
	p.add("close", unix.SYS_CLOSE, dup)
	p.add("not needed", unix.SYS_CLOSE, -1)
	p.last().unless = int(dup)
	p.add("fails", unix.SYS_CLOSE, dup)
	p.add("not reached", unix.SYS_KILL, 0, int(unix.SIGKILL))
	p.seal()
	pid, err := p.start(&cloneArgs{}, birthTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != exitOfFailedChild {
		t.Errorf("%v, %v", status, err)
	}
	if err := p.failure(); err == nil || err.Error() != "fails: bad file descriptor" {
		t.Error(err)
	}
}
