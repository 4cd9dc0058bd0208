//go:build e2e

package e2e

import (
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
)

// In-place resize (KEP-1287), as the cgroups have it and as a user sees it.
func TestInPlaceResize(t *testing.T) {
	e := start(t)
	e.applyPod("p", `
  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "trap 'exit 0' TERM; sleep 12345 & wait"]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
    resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: memory, restartPolicy: RestartContainer}]
  - {name: other, image: "busybox:latest", command: [sleep, "12345"], resources: {requests: {memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}}
`)
	e.wait("condition=Ready", "pod/p")
	resize := func(pod, resources string) {
		t.Helper()
		e.kubectl("patch", "pod", pod, "--subresource=resize", "-p", `{"spec": {"containers": [{"name": "work", "resources": `+resources+`}]}}`)
	}
	const files = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || (cut -d' ' -f1 /sys/fs/cgroup/cpu.max; cat /sys/fs/cgroup/memory.max)"
	inside := func(want string) {
		t.Helper()
		wantLines(t, e.kubectl("exec", "p", "-c", "work", "--", "sh", "-c", files), want)
	}
	inside("20000\n67108864")

	resize("p", `{"requests": {"cpu": "300m"}, "limits": {"cpu": "400m"}}`)
	e.wait("jsonpath={.status.containerStatuses[?(@.name==\"work\")].resources.limits.cpu}=400m", "pod/p")
	inside("40000\n67108864")
	if n := e.kubectl("get", "pod", "p", "-o", "jsonpath={.status.containerStatuses[*].restartCount}"); n != "0 0" {
		t.Errorf("restarts: %s", n)
	}
	resize("p", `{"limits": {"memory": "96Mi"}}`)
	e.wait("jsonpath={.status.containerStatuses[?(@.name==\"work\")].restartCount}=1", "pod/p")
	e.wait("condition=Ready", "pod/p")
	inside("40000\n100663296")

	// What the node hasn't is refused at once.
	if r := e.try("", "patch", "pod", "p", "--subresource=resize", "-p", `{"spec": {"containers": [{"name": "work", "resources": {"requests": {"cpu": "9000"}, "limits": {"cpu": "9000"}}}]}}`); r.Code == 0 || !strings.Contains(r.Stderr, "node didn't have enough allocatable resources") {
		t.Errorf("a resize beyond the node: %+v", r)
	}
	// What another pod has is waited for, and nothing is forgotten with errand.
	e.kubectl("run", "big", "--image=busybox:latest", "--restart=Never", `--overrides={"spec": {"containers": [{"name": "big", "image": "busybox:latest", "command": ["sleep", "12345"], "resources": {"requests": {"cpu": "`+most(e)+`"}}}], "terminationGracePeriodSeconds": 1}}`)
	e.wait("condition=Ready", "pod/big")
	resize("p", `{"requests": {"cpu": "800m"}, "limits": {"cpu": "800m"}}`)
	e.wait("condition=PodResizePending", "pod/p")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.wait("condition=PodResizePending", "pod/p")
	inside("40000\n100663296")
	out := e.kubectl("describe", "pod", "p")
	for _, want := range []string{"ResizeCompleted", "resize requires restart", "ResizeDeferred", "Node didn't have enough resource: cpu, requested: 900"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl describe does not say %q:\n%s", want, out)
		}
	}
	e.kubectl("delete", "pod", "big", "--timeout=60s")
	e.wait("jsonpath={.status.containerStatuses[?(@.name==\"work\")].resources.limits.cpu}=800m", "pod/p")
	inside("80000\n100663296")
	resize("p", `{"requests": {"cpu": "100m"}, "limits": {"cpu": "150m"}}`)
	e.wait("jsonpath={.status.containerStatuses[?(@.name==\"work\")].resources.limits.cpu}=150m", "pod/p")
	inside("15000\n100663296")
	e.kubectl("delete", "pod", "p", "--timeout=60s")
}

// most is the node's CPU but half of one, which the other pods of a test leave.
func most(e *errand) string {
	e.t.Helper()
	q := resource.MustParse(e.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"))
	return strconv.FormatInt(q.MilliValue()-500, 10) + "m"
}

// Variables that an init container has left in a file (KEP-3721).
func TestEnvFiles(t *testing.T) {
	e := start(t)
	out := e.runPod("files", `
  initContainers: [{name: make, image: "busybox:latest", command: [sh, -c, "echo \"GREETING='from a file'\" > /made/env; ln -s /etc/hostname /made/host"], volumeMounts: [{name: made, mountPath: /made}]}]
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "echo $A; echo ${B-unset}"]
    env:
    - {name: A, valueFrom: {fileKeyRef: {volumeName: made, path: env, key: GREETING}}}
    - {name: B, valueFrom: {fileKeyRef: {volumeName: made, path: none, key: GREETING, optional: true}}}
  volumes: [{name: made, emptyDir: {}}]
`)
	wantLines(t, out, "from a file\nunset")
}
