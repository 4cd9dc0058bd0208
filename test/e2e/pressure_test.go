//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// smallDisk is a directory on a file system of 512 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A pod that fills the disk is evicted; its Job, which ignores disruptions, loses
// no try by it, and goes on once there is room.
func TestEvictionFromAFullDisk(t *testing.T) {
	const threshold = 150 << 20
	dir := smallDisk(t)
	e := startIn(t, filepath.Join(dir, "data"), "--eviction-hard=nodefs.available<150Mi", "--eviction-pressure-transition-period=1s")
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	e.runPod("first", "\n  containers: [{name: work, image: \"busybox:latest\", command: [\"true\"]}]\n") // pulls the image
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	megabytes := (int64(st.Bavail)*st.Bsize-threshold)>>20 + 40
	g := newGate(t)
	e.apply(job("filler", fmt.Sprintf("test -e /gate/tried && exit 0; touch /gate/tried; trap 'exit 9' TERM; dd if=/dev/zero of=/scratch/fill bs=1M count=%d && %s; sleep 3600 & wait", megabytes, knockGate),
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") +
		fmt.Sprintf("        volumeMounts: [%s, {name: scratch, mountPath: /scratch}]\n      volumes: [%s, {name: scratch, emptyDir: {}}]\n", gateMount, g.volume()))
	g.arrived()
	victim := e.kubectl("get", "pods", "-l", "job-name=filler", "-o", "jsonpath={.items[*].metadata.name}")

	const low = "The node was low on resource: ephemeral-storage. Threshold quantity: 150Mi, available: "
	if got := e.awaitEvent(victim, "Evicted"); !strings.HasPrefix(got, low) {
		t.Errorf("the event Evicted says %q", got)
	}
	e.wait("jsonpath={.status.phase}=Failed", "pod/"+victim)
	status := e.podStatus(victim)
	if status.Reason != "Evicted" || !strings.HasPrefix(status.Message, low) {
		t.Errorf("its status is %s: %s", status.Reason, status.Message)
	}
	if c := condition(status, v1.DisruptionTarget); c == nil || c.Status != v1.ConditionTrue || c.Reason != v1.PodReasonTerminationByKubelet {
		t.Errorf("its conditions are %+v", status.Conditions)
	}
	for reason, want := range map[string]string{
		"EvictionThresholdMet":  "Attempting to reclaim ephemeral-storage",
		"NodeHasDiskPressure":   "Node " + node + " status is now: NodeHasDiskPressure",
		"NodeHasNoDiskPressure": "Node " + node + " status is now: NodeHasNoDiskPressure",
	} {
		if got := e.awaitEvent(node, reason); got != want {
			t.Errorf("%s says %q", reason, got)
		}
	}
	e.wait("condition=Complete", "job/filler")
	if failed := e.kubectl("get", "job", "filler", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the eviction counts as %s failures", failed)
	}
	// No pod came to the node while it had no room.
	if pods := strings.Fields(e.kubectl("get", "pods", "-l", "job-name=filler", "-o", "name")); len(pods) != 2 {
		t.Errorf("the Job has had the pods %v", pods)
	}
	if told := e.kubectl("describe", "pod", victim); !strings.Contains(told, "Reason:           Evicted") {
		t.Errorf("kubectl describe doesn't tell of the eviction:\n%s", told)
	}
}

// Who takes more of the disk than is allowed is ended.
func TestDiskLimits(t *testing.T) {
	e := start(t)
	// Further down than a path can say: nothing is hidden there, and it goes as all does.
	const deep = "for i in $(seq 300); do mkdir a-long-directory && cd -P a-long-directory || exit; done; dd if=/dev/zero of=f bs=1M count=4; sleep 3600"
	for name, c := range map[string]struct{ container, volumes, want string }{
		"volume": {
			`volumeMounts: [{name: scratch, mountPath: /scratch}], command: [sh, -c, "dd if=/dev/zero of=/scratch/f bs=1M count=4; sleep 3600"]`,
			`[{name: scratch, emptyDir: {sizeLimit: 1Mi}}]`, `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `,
		},
		"container": {
			`resources: {limits: {ephemeral-storage: 2Mi}}, command: [sh, -c, "dd if=/dev/zero of=/f bs=1M count=4; sleep 3600"]`,
			`[]`, `Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. `,
		},
		"deep-volume": {
			`volumeMounts: [{name: scratch, mountPath: /scratch}], command: [sh, -c, "cd /scratch; ` + deep + `"]`,
			`[{name: scratch, emptyDir: {sizeLimit: 3Mi}}]`, `Usage of EmptyDir volume "scratch" exceeds the limit "3Mi". `,
		},
		"deep-container": {
			`resources: {limits: {ephemeral-storage: 3Mi}}, command: [sh, -c, "cd /; ` + deep + `"]`,
			`[]`, `Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. `,
		},
		"log": {
			`resources: {limits: {ephemeral-storage: 2Mi}}, command: [sh, -c, "dd if=/dev/zero bs=1M count=3 | tr '\\0' '\\n'; sleep 3600"]`,
			`[]`, `Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. `,
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.with(t)
			e.applyPod(name, fmt.Sprintf("\n  containers: [{name: work, image: \"busybox:latest\", %s}]\n  volumes: %s\n", c.container, c.volumes))
			e.wait("jsonpath={.status.phase}=Failed", "pod/"+name)
			if s := e.podStatus(name); s.Reason != "Evicted" || s.Message != c.want || condition(s, v1.DisruptionTarget) != nil {
				t.Errorf("%s: %q, %+v", s.Reason, s.Message, s.Conditions)
			}
		})
	}
}

// Who takes more memory than is allowed is killed, and so it is told: also if it
// was only a child of the container's.
func TestOOMKilled(t *testing.T) {
	e := start(t)
	const limited = `image: "busybox:latest", resources: {limits: {memory: 32Mi}}, command: `
	e.applyPod("hungry", "\n  containers:\n"+
		"  - {name: first, "+limited+"[tail, /dev/zero]}\n"+
		"  - {name: child, "+limited+"[sh, -c, \"tail /dev/zero; exit 3\"]}\n")
	e.wait("jsonpath={.status.phase}=Failed", "pod/hungry")
	for _, c := range e.podStatus("hungry").ContainerStatuses {
		// A kernel with cgroups of version 2 ends the whole container.
		end := c.State.Terminated
		if end == nil || end.Reason != "OOMKilled" || end.ExitCode != 137 && (c.Name == "first" || end.ExitCode != 3) {
			t.Errorf("%s ended as %+v", c.Name, end)
		}
	}

	// Someone forgot the unit.
	e.applyPod("starved", `
  containers: [{name: work, image: "busybox:latest", resources: {limits: {memory: 128}}, command: ["true"]}]
`)
	e.wait("jsonpath={.status.phase}=Failed", "pod/starved")
	if end := e.podStatus("starved").ContainerStatuses[0].State.Terminated; end == nil || end.Reason != "StartError" || !strings.Contains(end.Message, "the memory limit is too low") {
		t.Errorf("with a limit of 128 bytes it ended as %+v", end)
	}
}
