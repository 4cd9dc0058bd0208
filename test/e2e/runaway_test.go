//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// A fork bomb goes no further than its pod: beside it others run, and it goes
// when it is deleted.
func TestForkBomb(t *testing.T) {
	const limit = 50
	e := start(t, fmt.Sprint("--pod-max-pids=", limit))
	g := newGate(t)
	// It stops growing when a fork fails, and begins again.
	e.applyPod("bomb", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", resources: {limits: {cpu: 500m}}, volumeMounts: [%s],
    command: [sh, -c, "bomb() { while :; do bomb & done; }; while :; do bomb; done 2>> /gate/said & exec sleep 3600"]}]
  volumes: [%s]
`, gateMount, g.volume()))
	e.wait("condition=Ready", "pod/bomb")
	said, err := os.OpenFile(g.path("said"), os.O_RDONLY|os.O_CREATE, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	deadline := time.Now().Add(patience)
	for buf := make([]byte, 4096); ; {
		if n, _ := said.Read(buf); bytes.Contains(buf[:n], []byte("can't fork")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no fork has failed")
		}
		time.Sleep(10 * time.Millisecond) // a file that grows tells nobody
	}
	e.runPod("beside", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "true; echo fine"]}]
`)
	names, err := e.Names()
	if err != nil {
		t.Fatal(err)
	}
	files := append(glob(t, "/sys/fs/cgroup"+names.CgroupParent+"/*/pids.current"), glob(t, "/sys/fs/cgroup/pids"+names.CgroupParent+"/*/pids.current")...)
	full := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || n > limit {
			t.Errorf("%s is %q", file, b)
		}
		if n > limit/2 {
			full++
		}
	}
	if full != 1 {
		t.Errorf("of %q one should be nearly full, not %d", files, full)
	}
	e.kubectl("delete", "pod", "bomb", "--timeout="+patience.String())
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A container that prints as fast as it can takes neither the disk nor anybody's
// memory.
func TestLogAtFullSpeed(t *testing.T) {
	const size, files, printed = 1 << 20, 3, 400 << 20
	e := start(t, fmt.Sprint("--container-log-max-size=", size), fmt.Sprint("--container-log-max-files=", files))
	e.runPod("first", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
	shim, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	before := map[int]int{e.PID(): residentKB(t, e.PID()), shim: residentKB(t, shim)}
	// errand serves what else comes meanwhile.
	slack := map[int]int{e.PID(): 60 << 10, shim: 8 << 10}
	e.applyPod("torrent", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "yes all work and no play makes jack a dull boy | head -c %d"]}]
`, printed))
	deadline := time.Now().Add(3 * patience)
	for e.podStatus("torrent").Phase != v1.PodSucceeded {
		if got := diskUse(t, filepath.Join(e.cfg.DataDir, "logs")); got > (files+1)*size {
			t.Fatalf("the log takes %d bytes", got)
		}
		for pid, kb := range before {
			if now := residentKB(t, pid); now > kb+slack[pid] {
				t.Fatalf("process %d has grown from %d KiB to %d", pid, kb, now)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it goes on and on: %+v", e.podStatus("torrent"))
		}
		time.Sleep(50 * time.Millisecond) // what is looked for is the greatest of many
	}
	if got := e.kubectl("logs", "torrent", "--tail=2"); !strings.HasPrefix(got, "all work") && !strings.Contains(got, "dull boy") {
		t.Errorf("the log ends with %q", got)
	}
}

// diskUse is what the files below a directory hold, in bytes.
func diskUse(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a rotated file may go at any time
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// residentKB is a process's own memory that is in RAM.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatalf("process %d does not tell its RssAnon", pid)
	return 0
}

// What a container prints is what kubectl logs gives, whatever bytes these are
// and however long the lines.
func TestUnusualOutput(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.applyPod("binary", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", volumeMounts: [%s],
    command: [sh, -c, "(head -c 300000 /dev/urandom; echo; head -c 1000000 /dev/zero; echo; printf 'no end') > /gate/printed; cat /gate/printed"]}]
  volumes: [%s]
`, gateMount, g.volume()))
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/binary")
	want, err := os.ReadFile(g.path("printed"))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.kubectl("logs", "binary"); got != string(want) {
		t.Errorf("kubectl logs gives %d bytes, and not the %d that were printed", len(got), len(want))
	}
}

// environment is a container's env with n variables of so many bytes each.
func environment(n, size int) string {
	value := strings.Repeat("x", size)
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{name: V%d, value: %s}, ", i, value)
	}
	return "[" + strings.TrimSuffix(b.String(), ", ") + "]"
}

// As much environment as the kernel takes is passed on; more than that is told:
// by errand's own launcher as a start that failed, by the OCI runtime, which has
// taken the container for started by then, in the container's log.
func TestLargeEnvironments(t *testing.T) {
	e := start(t)
	create := func(name, spec string) {
		t.Helper()
		e.kubectlIn(podManifest(name, spec), "create", "-f", "-") // apply keeps a copy in an annotation, which has its own limit
	}
	for _, shared := range []bool{false, true} {
		name := map[bool]string{false: "native", true: "runtime"}[shared]
		create(name+"-many", fmt.Sprintf(`
  shareProcessNamespace: %t
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "env | grep -c ^V; env | tail -c 3"], env: %s}]
`, shared, environment(10_000, 20)))
		create(name+"-long", fmt.Sprintf(`
  shareProcessNamespace: %t
  containers: [{name: work, image: "busybox:latest", command: ["true"], env: %s}]
`, shared, environment(1, 200_000)))
		e.wait("jsonpath={.status.phase}=Succeeded", "pod/"+name+"-many")
		if got := e.kubectl("logs", name+"-many"); !strings.HasPrefix(got, "10000\n") {
			t.Errorf("%s: of 10,000 variables there are %s", name, got)
		}
		e.wait("jsonpath={.status.phase}=Failed", "pod/"+name+"-long")
		end := e.podStatus(name + "-long").ContainerStatuses[0].State.Terminated
		said := end.Message
		if shared {
			said = e.kubectl("logs", name+"-long")
		} else if end.Reason != "StartError" || end.ExitCode != 128 {
			t.Errorf("%s: it ended with %d, %s", name, end.ExitCode, end.Reason)
		}
		if !strings.Contains(said, "argument list too long") {
			t.Errorf("%s: it ended with %d, %s: %.1000q", name, end.ExitCode, end.Reason, said)
		}
	}
}

// Names as long as they may be, and as many containers as fit.
func TestLargestPods(t *testing.T) {
	e := start(t)
	label := strings.Repeat("a", 63)
	pod := strings.Join([]string{label, label, label, label[:61]}, ".")
	container := strings.Repeat("c", 63)
	e.applyPod(pod, fmt.Sprintf(`
  containers: [{name: %s, image: "busybox:latest", command: [hostname]}]
`, container))
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/"+pod)
	if got := e.kubectl("logs", pod); got != label+"\n" {
		t.Errorf("the host is called %q", got)
	}
	e.kubectl("delete", "pod", pod)

	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "{name: c%d, image: \"busybox:latest\", command: [sh, -c, \"exit %d\"]}, ", i, i%2)
	}
	e.applyPod("crowd", "\n  containers: ["+strings.TrimSuffix(many.String(), ", ")+"]\n")
	e.wait("jsonpath={.status.phase}=Failed", "pod/crowd")
	for _, c := range e.podStatus("crowd").ContainerStatuses {
		n, err := strconv.Atoi(c.Name[1:])
		if err != nil || c.State.Terminated == nil || int(c.State.Terminated.ExitCode) != n%2 {
			t.Errorf("%s ended with %+v", c.Name, c.State)
		}
	}
}
