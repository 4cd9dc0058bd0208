//go:build systemd

// Package systemd runs errand by the unit that make install installs, under the
// machine's systemd. It needs root, a systemd that is the machine's init, and the
// binaries that `make build kubectl` makes.
package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/internal/slowness"
	"errand.dev/errand/test/registry"
)

const (
	unitName = "errand-test.service"
	unitFile = "/run/systemd/system/" + unitName
)

// unit is errand as a service of a test's own.
type unit struct {
	t       *testing.T
	bin     string
	dataDir string
	// starts has a byte for each start that was completed.
	starts *os.File
}

// install makes the unit that is installed one of the test's own: another name,
// and another data directory.
func install(t *testing.T) *unit {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil || os.Geteuid() != 0 {
		t.Fatal("needs root, and systemd as the machine's init")
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "s-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	images, conf, err := registry.StartBusybox("", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	u := &unit{t: t, bin: bin, dataDir: filepath.Join(dir, "data")}
	leakcheck.Check(t, u.dataDir)

	text, err := os.ReadFile("../../deploy/errand.service")
	if err != nil {
		t.Fatal(err)
	}
	const command = "/usr/local/bin/errand serve"
	ours := filepath.Join(bin, "errand") + " serve --listen 127.0.0.1:0 --data-dir " + u.dataDir + " --registries-conf " + conf
	if !bytes.Contains(text, []byte(command+"\n")) {
		t.Fatalf("the unit doesn't run %s", command)
	}
	fifo := filepath.Join(dir, "starts")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if u.starts, err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.starts.Close() })
	text = bytes.Replace(text, []byte(command), []byte(ours+"\nExecStartPost=/bin/sh -c 'printf x > "+fifo+"'"), 1)
	if err := os.WriteFile(unitFile, text, 0o644); err != nil {
		t.Fatal(err)
	}
	u.systemctl("daemon-reload")
	t.Cleanup(u.remove)
	return u
}

// remove ends errand and all its containers, and takes the unit away.
func (u *unit) remove() {
	if u.t.Failed() {
		out, _ := exec.Command("journalctl", "--no-pager", "-n", "50", "-u", unitName).CombinedOutput()
		u.t.Logf("the journal:\n%s", out)
	}
	u.systemctl("stop", unitName)
	u.run(filepath.Join(u.bin, "errand"), "drain", "--data-dir", u.dataDir)
	if err := os.Remove(unitFile); err != nil {
		u.t.Error(err)
	}
	u.systemctl("daemon-reload")
}

func (u *unit) run(name string, args ...string) string {
	u.t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		u.t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

func (u *unit) systemctl(args ...string) string {
	u.t.Helper()
	return u.run("systemctl", args...)
}

// start starts errand, and returns once systemd says that it has started.
func (u *unit) start() {
	u.t.Helper()
	u.systemctl("start", unitName)
	u.awaitStart()
}

func (u *unit) awaitStart() {
	u.t.Helper()
	if err := u.starts.SetReadDeadline(time.Now().Add(slowness.Times(time.Minute))); err != nil {
		u.t.Fatal(err)
	}
	if _, err := u.starts.Read(make([]byte, 1)); err != nil {
		u.t.Fatalf("errand is not started: %v", err)
	}
}

func (u *unit) kubectl(args ...string) string {
	u.t.Helper()
	return u.run(filepath.Join(u.bin, "kubectl"), append([]string{"--kubeconfig", filepath.Join(u.dataDir, "kubeconfig")}, args...)...)
}

func (u *unit) property(name string) string {
	u.t.Helper()
	return u.systemctl("show", "--property", name, "--value", unitName)
}

// startPod runs a pod until it is Ready.
func (u *unit) startPod() {
	u.t.Helper()
	u.kubectl("run", "sleeper", "--image=busybox", "--image-pull-policy=IfNotPresent", "--restart=Always", "--", "sleep", "100000")
	u.kubectl("wait", "--for=condition=Ready", "--timeout="+slowness.Times(time.Minute).String(), "pod/sleeper")
}

// pod is what the pod is known by as long as it's the same one.
func (u *unit) pod() string {
	u.t.Helper()
	return u.kubectl("get", "pod", "sleeper", "-o", "jsonpath={.status.phase} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

// processes are those in the cgroup of the instance, and below it: the shim and
// the containers.
func (u *unit) processes() string {
	u.t.Helper()
	names, err := instance.For(u.dataDir)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.run("systemd-cgls", "--no-pager", "--full", names.CgroupParent)
}

// The service is started once its API answers and its node is Ready; containers
// outlive a stop and a crash of it, and are found again.
func TestUnit(t *testing.T) {
	u := install(t)
	u.start()
	u.startPod()
	pod, processes := u.pod(), u.processes()
	if !strings.Contains(processes, "errand-shim") || !strings.Contains(processes, "sleep 100000") {
		t.Fatalf("not in the cgroup of errand's pods, outside of the unit's: %s", processes)
	}

	u.systemctl("stop", unitName)
	if state, result := u.property("ActiveState"), u.property("Result"); state != "inactive" || result != "success" {
		t.Errorf("stopped, the unit is %s, by %s", state, result)
	}
	if got := u.processes(); got != processes {
		t.Errorf("after a stop there is\n%s\nand before it was\n%s", got, processes)
	}

	// What systemd may do meanwhile: it owns the root of the cgroups.
	u.systemctl("daemon-reload")
	u.start()
	if got := u.pod(); got != pod {
		t.Errorf("after a stop and a start the pod is %q, and was %q", got, pod)
	}

	u.systemctl("kill", "--kill-whom=main", "--signal=KILL", unitName)
	u.awaitStart()
	if got := u.pod(); got != pod {
		t.Errorf("after a crash the pod is %q, and was %q", got, pod)
	}
	if got := u.processes(); got != processes {
		t.Errorf("after a crash there is\n%s\nand before it was\n%s", got, processes)
	}
}

// The controllers that the pods' limits need stay enabled at the root, whatever
// systemd's own units need.
func TestControllersStay(t *testing.T) {
	const file = "/sys/fs/cgroup/cgroup.subtree_control"
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Fatal("needs cgroups of version 2")
	}
	u := install(t)
	u.start()
	u.startPod()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, controller := range []string{"cpu", "memory", "pids"} {
		if !strings.Contains(" "+string(before), " "+controller) {
			t.Errorf("%s isn't enabled: %s", controller, before)
		}
	}
	u.systemctl("stop", unitName)
	u.systemctl("daemon-reload")
	u.run("systemd-run", "--quiet", "--scope", "--property=CPUWeight=50", "true")
	u.systemctl("daemon-reexec")
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("enabled are %s, %v, and were %s", after, err, before)
	}
	if got := u.processes(); !strings.Contains(got, "sleep 100000") {
		t.Errorf("the container has ended: %s", got)
	}
}
