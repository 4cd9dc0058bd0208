package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/internal/oci/shim/launch"
)

// fakeRoot makes a tree with the given files, by their path from the root.
func fakeRoot(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Host{Root: root, DataDir: filepath.Join(root, "data"), Listen: "127.0.0.1:0"}
}

func TestKernel(t *testing.T) {
	for release, want := range map[string]Status{
		"6.18.44-generic": OK,
		"5.10.0":          OK,
		"5.9.16":          Failure,
		"4.18.0-553.el8":  Failure,
		"5.15-rc1":        OK,
		"weird":           Warning,
	} {
		h := fakeRoot(t, map[string]string{"/proc/sys/kernel/osrelease": release + "\n"})
		if f := kernel(t.Context(), h); f.Status != want {
			t.Errorf("kernel %s: %+v, want %s", release, f, want)
		}
	}
}

func TestCgroups(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  Status
		word  string
	}{
		"v2":             {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, OK, "v2"},
		"v2 undelegated": {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu pids\n"}, Failure, "memory"},
		"v1": {map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/tasks": "", "/sys/fs/cgroup/memory/tasks": "", "/sys/fs/cgroup/pids/tasks": "",
		}, Warning, "v1"},
		"none": {nil, Failure, "no cgroup filesystem"},
	} {
		t.Run(name, func(t *testing.T) {
			f := cgroups(t.Context(), fakeRoot(t, tc.files))
			if f.Status != tc.want || !strings.Contains(f.Detail, tc.word) {
				t.Errorf("%+v, want %s that speaks of %s", f, tc.want, tc.word)
			}
			if (f.Status == OK) != (f.Remedy == "") {
				t.Errorf("%+v: a remedy belongs to what is wrong, and only to that", f)
			}
		})
	}
}

func TestPortTellsWhoHasIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := fakeRoot(t, nil)
	h.Listen = l.Addr().String()
	if f := port(t.Context(), h); f.Status != Failure || f.Detail != h.Listen+" is taken by another process" {
		t.Errorf("a port in a stranger's use: %+v", f)
	}
	real := h
	real.Root = "" // where this process can be found
	if f, want := port(t.Context(), real), fmt.Sprintf("%s is taken by doctor.test (pid %d)", h.Listen, os.Getpid()); f.Status != Failure || f.Detail != want {
		t.Errorf("a port in this process's use: %+v, want %q", f, want)
	}
	d, err := datadir.Open(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, h := range []Host{h, real} {
		if f := port(t.Context(), h); f.Status != OK {
			t.Errorf("a port in errand's own use: %+v", f)
		}
	}
}

func TestCgroupsMustBeWritable(t *testing.T) {
	if os.Geteuid() != 0 {
		return // without root it is not tried
	}
	h := fakeRoot(t, map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"})
	root := filepath.Join(h.Root, "/sys/fs/cgroup")
	names, err := instance.For(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(root, names.CgroupParent)
	for _, there := range []bool{false, true} {
		if there {
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if f := cgroups(t.Context(), h); f.Status != OK {
			t.Errorf("%+v, want ok", f)
		}
		if _, err := os.Stat(own); (err == nil) != there {
			t.Errorf("there before: %t, after: %v", there, err)
		}
		if entries, _ := os.ReadDir(own); len(entries) > 0 {
			t.Errorf("it left %v", entries)
		}
	}
	// A file in place of the cgroup stands for a filesystem that is read-only.
	if err := errors.Join(os.Remove(own), os.WriteFile(own, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if f := cgroups(t.Context(), h); f.Status != Failure || !strings.Contains(f.Detail, "can't make a cgroup") || f.Remedy == "" {
		t.Errorf("%+v, want a failure", f)
	}
}

func TestPodNetworkLeavesNothing(t *testing.T) {
	h := fakeRoot(t, nil)
	names, err := instance.For(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	f := podNetwork(t.Context(), h)
	if os.Geteuid() != 0 {
		if f.Status != Warning {
			t.Errorf("without root: %+v", f)
		}
		return
	}
	if f.Status != OK {
		t.Errorf("%+v", f)
	}
	left, err := leakcheck.Find(names, h.DataDir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestOldRuntimesAreNamed(t *testing.T) {
	const old = "runc 1.1.5 at /usr/bin/runc is older than 1.1.12"
	for name, tc := range map[string]struct {
		h        Host
		launches bool // errand does itself
		want     Status
		word     string
	}{
		"none":                      {Host{}, false, Failure, "none was found"},
		"only an old one":           {Host{PassedOver: []string{old}}, false, Failure, old},
		"none but the launcher":     {Host{}, true, Warning, "none was found: what errand doesn't start itself can't run"},
		"an old one and a launcher": {Host{PassedOver: []string{old}}, true, Warning, old},
		"an old one named":          {Host{Runtimes: map[string]string{"runc": "/usr/bin/runc"}, TooOldNamed: []string{"--runtime runc: " + old}}, true, Failure, old},
		"an old one besides":        {Host{Runtimes: map[string]string{"echo": "/bin/echo"}, PassedOver: []string{old}}, true, OK, old + ", and not used"},
	} {
		tc.h.OldestRuntimes = "crun 1.21 or runc 1.1.12"
		f := runtimeFinding(t.Context(), tc.h, tc.launches)
		if f.Status != tc.want || !strings.Contains(f.Detail, tc.word) {
			t.Errorf("%s: %+v, want %s that speaks of %q", name, f, tc.want, tc.word)
		}
		if f.Status != OK && !strings.Contains(f.Remedy, tc.h.OldestRuntimes) {
			t.Errorf("%s: the remedy doesn't say what would do: %s", name, f.Remedy)
		}
	}
}

func TestANewerDataDirectoryIsTold(t *testing.T) {
	h := fakeRoot(t, map[string]string{"/data/format": "99\n"})
	if f := dataDirectory(t.Context(), h); f.Status != Failure || !strings.Contains(f.Detail, "format 99, made by a newer errand") {
		t.Errorf("%+v", f)
	}
	h = fakeRoot(t, map[string]string{"/data/format": "apple\n"})
	if f := dataDirectory(t.Context(), h); f.Status != Failure || !strings.Contains(f.Detail, `holds "apple"`) {
		t.Errorf("%+v", f)
	}
}

func TestExamineAnswersEveryCheck(t *testing.T) {
	h := fakeRoot(t, nil)
	found, err := Examine(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(checks(Host{})) {
		t.Fatalf("%d findings of %d checks", len(found), len(checks(Host{})))
	}
	for _, f := range found {
		if f.Status == "" || f.Detail == "" || (f.Status != OK && f.Remedy == "") {
			t.Errorf("incomplete finding %+v", f)
		}
	}
	if Worst(found) != Failure {
		t.Errorf("a host with nothing on it is %s", Worst(found))
	}
}

func TestLauncherSaysWhatIsInItsWay(t *testing.T) {
	for name, tc := range map[string]struct {
		err            error
		root           bool
		want           Status
		detail, remedy string
	}{
		"nothing":              {nil, true, OK, "errand starts ordinary containers itself", ""},
		"an old kernel":        {fmt.Errorf("the kernel lacks mount_setattr (%w)", unix.ENOSYS), true, Warning, "an OCI runtime starts all containers: the kernel lacks mount_setattr", "use Linux 5.12"},
		"the same, not root":   {fmt.Errorf("the kernel lacks mount_setattr (%w)", unix.ENOSYS), false, Warning, "an OCI runtime starts all containers: the kernel lacks mount_setattr", "use Linux 5.12"},
		"not root":             {fmt.Errorf("this process may not call mount_setattr (%w)", unix.EPERM), false, Warning, "can't try without root", "run errand doctor as root"},
		"root, but restrained": {fmt.Errorf("this process may not call mount_setattr (%w)", unix.EPERM), true, Warning, "this process may not call mount_setattr", "CAP_SYS_ADMIN"},
		"a setting":            {launch.ErrDumpable, true, Warning, "fs.suid_dumpable is 1", "sysctl fs.suid_dumpable=2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := launcherFinding(tc.err, tc.root)
			if f.Status != tc.want || !strings.Contains(f.Detail, tc.detail) || !strings.Contains(f.Remedy, tc.remedy) || (tc.remedy == "") != (f.Remedy == "") {
				t.Errorf("%+v, want %s, %q, %q", f, tc.want, tc.detail, tc.remedy)
			}
		})
	}
}
