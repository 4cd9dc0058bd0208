//go:build systemd

package systemd

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/slowness"
)

// confined is a pod that says what it is confined by, one container with limits
// and one without.
const confined = `
apiVersion: v1
kind: Pod
metadata: {name: confined}
spec:
  restartPolicy: Never
  containers:
  - name: limited
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, &look '
      cd /sys/fs/cgroup; for f in cpu.max memory.max memory.swap.max memory.oom.group hugetlb.2MB.max; do echo "$f $(cat $f)"; done;
      echo "profile $(cat /proc/self/attr/current)";
      mknod /tmp/loop b 7 0; mknod /tmp/kmsg c 1 11; for d in loop kmsg; do head -c 1 /tmp/$d 2>&1; done;
      for f in /sys/fs/cgroup/memory.max /ro/file /ro/below/file; do { echo 1 > $f; } 2>&1; done; true']
    resources: {limits: {cpu: 250m, memory: 32Mi, hugepages-2Mi: 4Mi}}
    volumeMounts: [{name: host, mountPath: /ro, readOnly: true, recursiveReadOnly: Enabled}]
  - name: unlimited
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, *look]
    volumeMounts: [{name: host, mountPath: /ro, readOnly: true, recursiveReadOnly: IfPossible}]
  volumes: [{name: host, hostPath: {path: HOST}}]
`

// What confines containers on a machine as most are: cgroups of version 2, AppArmor,
// all capabilities.
func TestConfinement(t *testing.T) {
	profiles, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(profiles), "Y") {
		t.Fatal("needs AppArmor")
	}
	hugePages(t, 4)
	u := install(t)
	host := t.TempDir()
	below := filepath.Join(host, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(below, 0); err != nil {
			t.Error(err)
		}
	})
	u.start()
	manifest := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(manifest, []byte(strings.Replace(confined, "HOST", host, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	u.kubectl("apply", "-f", manifest)
	u.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+slowness.Times(time.Minute).String(), "pod/confined")
	group := []string{
		"memory.swap.max 0",
		"memory.oom.group 1",
	}
	rest := []string{
		"profile errand-default (enforce)",
		"head: /tmp/loop: Operation not permitted",
		"head: /tmp/kmsg: Operation not permitted",
		"sh: can't create /sys/fs/cgroup/memory.max: Read-only file system",
		"sh: can't create /ro/file: Read-only file system",
		"sh: can't create /ro/below/file: Read-only file system",
	}
	for container, limits := range map[string][]string{
		"limited":   {"cpu.max 25000 100000", "memory.max 33554432", "hugetlb.2MB.max 4194304"},
		"unlimited": {"cpu.max max 100000", "memory.max max", "hugetlb.2MB.max 0"},
	} {
		want := slices.Concat(limits[:2], group, limits[2:], rest)
		got := strings.Split(u.kubectl("logs", "confined", "-c", container), "\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: expected (-) and seen (+):\n%s", container, diff)
		}
	}
	const recursive = "jsonpath={.status.containerStatuses[*].volumeMounts[?(@.name=='host')].recursiveReadOnly}"
	if got := u.kubectl("get", "pod", "confined", "-o", recursive); got != "Enabled Enabled" {
		t.Errorf("the mounts are recursively read-only: %q", got)
	}
}

// hugePages sets the machine's number of huge pages aside until the test's end.
func hugePages(t *testing.T, n int) {
	t.Helper()
	const file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0); err != nil {
		t.Fatal(err)
	}
}
