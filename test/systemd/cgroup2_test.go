//go:build systemd

package systemd

import (
	"os"
	"path/filepath"
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
      cd /sys/fs/cgroup; for f in cpu.max memory.max memory.swap.max memory.oom.group; do echo "$f $(cat $f)"; done;
      echo "profile $(cat /proc/self/attr/current)";
      mknod /tmp/loop b 7 0; mknod /tmp/kmsg c 1 11; for d in loop kmsg; do head -c 1 /tmp/$d 2>&1; done;
      for f in /sys/fs/cgroup/memory.max /ro/file /ro/below/file; do { echo 1 > $f; } 2>&1; done; true']
    resources: {limits: {cpu: 250m, memory: 32Mi}}
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
	rest := []string{
		"memory.swap.max 0",
		"memory.oom.group 1",
		"profile errand-default (enforce)",
		"head: /tmp/loop: Operation not permitted",
		"head: /tmp/kmsg: Operation not permitted",
		"sh: can't create /sys/fs/cgroup/memory.max: Read-only file system",
		"sh: can't create /ro/file: Read-only file system",
		"sh: can't create /ro/below/file: Read-only file system",
	}
	for container, limits := range map[string][]string{
		"limited":   {"cpu.max 25000 100000", "memory.max 33554432"},
		"unlimited": {"cpu.max max 100000", "memory.max max"},
	} {
		got := strings.Split(u.kubectl("logs", "confined", "-c", container), "\n")
		if diff := cmp.Diff(append(limits, rest...), got); diff != "" {
			t.Errorf("%s: expected (-) and seen (+):\n%s", container, diff)
		}
	}
	const recursive = "jsonpath={.status.containerStatuses[*].volumeMounts[?(@.name=='host')].recursiveReadOnly}"
	if got := u.kubectl("get", "pod", "confined", "-o", recursive); got != "Enabled Enabled" {
		t.Errorf("the mounts are recursively read-only: %q", got)
	}
}
