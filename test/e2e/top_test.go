//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// usageOf finds a row of kubectl top by its first cells and returns its CPU in
// thousandths and its memory in bytes.
func usageOf(t *testing.T, out string, first ...string) (milliCPU, memory int64) {
	t.Helper()
	for line := range strings.Lines(out) {
		cells := strings.Fields(line)
		if len(cells) < len(first)+2 || strings.Join(cells[:len(first)], " ") != strings.Join(first, " ") {
			continue
		}
		cpu, err := resource.ParseQuantity(cells[len(first)])
		bytes, err2 := resource.ParseQuantity(cells[len(first)+1])
		if err := errors.Join(err, err2); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return cpu.MilliValue(), bytes.Value()
	}
	t.Fatalf("no row %v in:\n%s", first, out)
	return 0, 0
}

// burner is what the container burn runs; nobody else does.
const burner = "while :; do : burns for TestTop; done"

// burnt is the CPU time in seconds that the burner has used, by its
// /proc/PID/stat, whose unit is 10 ms.
func burnt(t *testing.T) float64 {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if b, err := os.ReadFile(path); err != nil || string(b) != "sh\x00-c\x00"+burner+"\x00" {
			continue // another, or it has ended meanwhile
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(b))
		user, err := strconv.Atoi(fields[13])
		system, err2 := strconv.Atoi(fields[14])
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return float64(user+system) / 100
	}
	t.Fatal("the burner doesn't run")
	return 0
}

// told is the CPU time in seconds that the container burn has used in the window of
// its metrics, and the window.
func (e *errand) told() (used, window float64) {
	e.t.Helper()
	var m metricsv1beta1.PodMetrics
	raw := e.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/burner")
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		e.t.Fatalf("%v: %s", err, raw)
	}
	for _, c := range m.Containers {
		if c.Name == "burn" {
			window = m.Window.Duration.Seconds()
			return c.Usage.Cpu().AsApproximateFloat64() * window, window
		}
	}
	e.t.Fatalf("%s", raw)
	return 0, 0
}

// kubectl top works as in a cluster with metrics-server.
func TestTop(t *testing.T) {
	e := start(t)
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	const hold = 64 << 20
	e.apply(podManifest("burner", fmt.Sprintf(`
  containers:
  - {name: burn, image: "busybox:latest", command: [sh, -c, %q], resources: {requests: {cpu: 1}}}
  - {name: hold, image: "busybox:latest", command: [sh, -c, "head -c %d /dev/zero > /disk/held; echo held; sleep 3600"], volumeMounts: [{name: disk, mountPath: /disk}]}
  volumes: [{name: disk, emptyDir: {medium: Memory}}]
`, burner, hold)))
	e.apply(podManifest("idler", `
  containers: [{name: sleep, image: "busybox:latest", command: [sleep, "3600"], readinessProbe: {exec: {command: ["true"]}, timeoutSeconds: 10}}]
`))
	e.kubectl("label", "pod", "idler", "app=idler")
	e.wait("condition=Ready", "pod/burner", "pod/idler")
	e.kubectl("logs", "burner", "-c", "hold", "--follow", "--limit-bytes=4") // it holds

	t.Run("pods", func(t *testing.T) {
		e := e.with(t)
		out := e.kubectl("top", "pod")
		cpu, memory := usageOf(t, out, "burner")
		if cpu == 0 || memory < hold || memory > 2*hold {
			t.Errorf("one that burns a core and holds %d bytes:\n%s", hold, out)
		}
		// On a busy machine it doesn't get its core: the kernel says what it got. The
		// second answer is about the time since the first.
		outer := burnt(t)
		e.told()
		began, inner := time.Now(), burnt(t)
		for time.Since(began) < 2*time.Second {
			e.kubectl("get", "pod", "burner")
		}
		least := burnt(t) - inner
		used, window := e.told()
		most := burnt(t) - outer
		const tick, rounding = 0.02, 0.02
		if window < 2 || used < least-tick-rounding || used > most+tick+rounding {
			t.Errorf("it is said to have used %.2f s of CPU in %.2f s; it was %.2f to %.2f s", used, window, least, most)
		}
	})
	t.Run("containers", func(t *testing.T) {
		e := e.with(t)
		out := e.kubectl("top", "pod", "--containers", "-A", "--sum")
		if cpu, _ := usageOf(t, out, "default", "burner", "burn"); cpu < 20 {
			t.Errorf("the one that burns:\n%s", out)
		}
		if cpu, memory := usageOf(t, out, "default", "burner", "hold"); cpu > 10 || memory < hold {
			t.Errorf("the one that holds:\n%s", out)
		}
		if !regexp.MustCompile(`(?m)^\s+_+\s+_+\s*\n\s+\d+m\s+\d+Mi\s*$`).MatchString(out) {
			t.Errorf("no sum:\n%s", out)
		}
	})
	t.Run("chosen", func(t *testing.T) {
		e := e.with(t)
		for _, args := range [][]string{{"-l", "app=idler"}, {"idler"}, {"--field-selector", "metadata.name=idler"}, {"idler", "--use-protocol-buffers=false"}} {
			out := e.kubectl(append([]string{"top", "pod", "--no-headers"}, args...)...)
			if strings.Count(out, "\n") != 1 {
				t.Errorf("top pod %v:\n%s", args, out)
			}
			usageOf(t, out, "idler")
		}
	})
	t.Run("nodes", func(t *testing.T) {
		e := e.with(t)
		out := e.kubectl("top", "node")
		cells := strings.Fields(strings.Split(out, "\n")[1])
		if cells[0] != node || len(cells) != 5 {
			t.Fatalf("top node:\n%s", out)
		}
		for _, percent := range []string{cells[2], cells[4]} {
			if n, err := strconv.Atoi(strings.TrimSuffix(percent, "%")); err != nil || n < 1 || n > 110 {
				t.Errorf("%s of what it has:\n%s", percent, out)
			}
		}
		one := strings.Fields(e.kubectl("top", "node", node, "--no-headers"))
		if milli, err := strconv.Atoi(strings.TrimSuffix(one[1], "m")); err != nil || milli < 500 {
			t.Errorf("%v, with a core burning", one)
		}
	})
	t.Run("get", func(t *testing.T) {
		e := e.with(t)
		usageOf(t, e.kubectl("get", "podmetrics"), "burner")
		usageOf(t, e.kubectl("get", "nodemetrics"), node)
		if out := e.kubectl("get", "pods"); !strings.Contains(out, "STATUS") {
			t.Errorf("kubectl get pods no longer means Pods:\n%s", out)
		}
		raw := e.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/idler")
		if !strings.Contains(raw, `"kind":"PodMetrics","apiVersion":"metrics.k8s.io/v1beta1"`) || !strings.Contains(raw, `"window":"`) {
			t.Errorf("%s", raw)
		}
		if out := e.kubectl("explain", "podmetrics.window", "--api-version=metrics.k8s.io/v1beta1"); !strings.Contains(out, "FIELD: window") {
			t.Errorf("kubectl explain:\n%s", out)
		}
	})
	t.Run("without usage", func(t *testing.T) {
		e := e.with(t)
		e.runPod("done", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
		for pod, want := range map[string]string{
			"done": `Error from server (NotFound): podmetrics.metrics.k8s.io "default/done" not found`,
			"none": `Error from server (NotFound): pods "default/none" not found`,
		} {
			if got := strings.TrimSpace(e.refused("", "top", "pod", pod)); got != want {
				t.Errorf("top pod %s: %s", pod, got)
			}
		}
		if r := e.try("", "top", "pod", "-n", "kube-system"); r.Code != 0 || !strings.Contains(r.Stderr, "No resources found in kube-system namespace.") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("by rights", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("create", "rolebinding", "viewers", "--clusterrole=view", "--user=ann")
		e.kubectl("top", "pod", "--as=ann")
		if got := e.refused("", "top", "pod", "--as=ann", "-A"); !strings.Contains(got, "pods.metrics.k8s.io is forbidden") {
			t.Errorf("in all namespaces: %s", got)
		}
	})
	t.Run("the node's own metrics", func(t *testing.T) {
		e := e.with(t)
		for path, want := range map[string][]string{
			"/api/v1/nodes/" + node + "/proxy/metrics/resource": {`container_cpu_usage_seconds_total{container="burn",namespace="default",pod="burner"}`, "node_memory_working_set_bytes "},
			"/api/v1/nodes/" + node + "/proxy/metrics":          {"kubelet_running_pods 2\n", `kubelet_running_containers{container_state="running"} 3`, "kubelet_pod_start_sli_duration_seconds_count 3\n"},
			"/api/v1/nodes/" + node + "/proxy/metrics/probes":   {`probe_type="Readiness",result="successful"} `},
			"/api/v1/nodes/" + node + "/proxy/stats/summary":    {`"nodeName": "` + node + `"`, `"workingSetBytes"`},
			"/metrics": {`kubelet_started_containers_total{container_type="container"} 4`},
		} {
			out := e.kubectl("get", "--raw", path)
			for _, text := range want {
				if !strings.Contains(strings.ReplaceAll(out, `":"`, `": "`), text) {
					t.Errorf("%s has no %s:\n%.3000s", path, text, out)
				}
			}
		}
	})
}
