package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--version"}, 0, "dev\n"},
		{nil, 2, "usage: "},
		{[]string{"--dir", "/x", "y"}, 2, "usage: "},
		{[]string{"--nosuch"}, 2, "nosuch"},
		{[]string{"--dir", "/proc/nowhere"}, 1, "errand-shim: "},
	} {
		var out bytes.Buffer
		if code := run(tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.want) {
			t.Errorf("%v: exit code %d, %q; want %d, %q", tc.args, code, out.String(), tc.code, tc.want)
		}
	}
}

// TestDetach: in the background it serves by the time that the foreground has ended, says why if it can't, and leaves at
// SIGTERM.
func TestDetach(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "errand-shim")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// As nohup does, and as callers do whose C library keeps signal 32 to itself.
	ignore(t, int(syscall.SIGHUP))
	ignore(t, 32)
	if out, err := exec.Command(bin, "--detach", "--dir", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%s, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "shim.sock")); err != nil {
		t.Error(err)
	}
	pid := shimPid(t, dir)
	names, _ := filepath.Glob("/proc/" + pid + "/task/*/comm")
	for _, file := range names {
		if name, err := os.ReadFile(file); err == nil && string(name) != "errand-shim\n" {
			t.Errorf("a thread is named %s", name)
		}
	}
	// Nothing of ours may keep the caller's terminal or pipes open, and no container may inherit ignored signals.
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil || !strings.Contains(string(status), "SigIgn:\t0000000000000000") {
		t.Errorf("ignores signals: %s, %v", status, err)
	}
	for _, fd := range []string{"0", "1", "2"} {
		if target, err := os.Readlink("/proc/" + pid + "/fd/" + fd); err != nil || target != "/dev/null" && target != dir+"/shim.log" {
			t.Errorf("descriptor %s is %s, %v", fd, target, err)
		}
	}
	// A new one waits for the old one to be gone.
	terminate(t, pid)
	if out, err := exec.Command(bin, "--detach", "--dir", dir).CombinedOutput(); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	terminate(t, shimPid(t, dir))

	long := filepath.Join(dir, strings.Repeat("x", 120))
	out, err := exec.Command(bin, "--detach", "--dir", long).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "bind") {
		t.Errorf("too long a path: %s, %v", out, err)
	}
}

// ignore lets this process, and so those that it starts, ignore a signal until the test's end.
func ignore(t *testing.T, sig int) {
	t.Helper()
	before, err := disposition(sig)
	if err != nil {
		t.Fatal(err)
	}
	if err := dispose(sig, sigaction{handler: sigIgn}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dispose(sig, before); err != nil {
			t.Error(err)
		}
	})
}

// shimPid finds the one shim that serves dir.
func shimPid(t *testing.T, dir string) string {
	t.Helper()
	pids, err := exec.Command("pgrep", "-f", "errand-shim --dir "+dir).Output()
	if fields := strings.Fields(string(pids)); err == nil && len(fields) == 1 {
		return fields[0]
	}
	t.Fatalf("shims: %s, %v", pids, err)
	return ""
}

func terminate(t *testing.T, pid string) {
	t.Helper()
	if out, err := exec.Command("kill", pid).CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}

// TestWall: the shim stays small by what it doesn't import.
func TestWall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		switch {
		case strings.HasPrefix(pkg, "golang.org/x/sys/"),
			strings.HasPrefix(pkg, "errand.dev/errand/internal/oci/shim"),
			pkg == "errand.dev/errand/cmd/errand-shim":
		default:
			t.Errorf("errand-shim imports %s", pkg)
		}
	}
	std, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"net", "os/exec", "regexp", "log/slog", "text/template"} {
		if strings.Contains("\n"+string(std), "\n"+pkg+"\n") {
			t.Errorf("errand-shim imports %s, which it has no need for and would make it larger", pkg)
		}
	}
}
