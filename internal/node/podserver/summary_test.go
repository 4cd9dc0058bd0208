package podserver

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/component-base/metrics"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func TestSummary(t *testing.T) {
	w := newWorld(t)
	code, body := w.get(t, "/stats/summary")
	var got statsapi.Summary
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	if n := got.Node; n.NodeName != "n" || *n.CPU.UsageCoreNanoSeconds != 3e9 || *n.Memory.WorkingSetBytes != 20 {
		t.Errorf("the node: %s", body)
	}
	if len(got.Pods) != 1 || got.Pods[0].PodRef.UID != "uid-1" || *got.Pods[0].CPU.UsageNanoCores != 7 || got.Pods[0].Memory != nil {
		t.Fatalf("%s", body)
	}
	c := got.Pods[0].Containers
	if len(c) != 1 || c[0].Name != "c" || *c[0].Memory.WorkingSetBytes != 9 || c[0].CPU != nil {
		t.Errorf("%s", body)
	}
}

// busyMachine uses 3 s of CPU and 20 bytes of memory.
type busyMachine struct{}

func (busyMachine) Usage() (MachineUsage, error) {
	return MachineUsage{At: time.Unix(8, 0), CPUNanos: 3e9, Used: 30, WorkingSet: 20}, nil
}

func testMetrics() Metrics {
	counter := func(name string) func(metrics.KubeRegistry) error {
		c := metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: "Something.", StabilityLevel: metrics.ALPHA})
		return func(r metrics.KubeRegistry) error { return r.Register(c) }
	}
	return Metrics{Node: counter("node_total"), Probes: counter("probes_total")}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string][]string{
		"/metrics/resource": {
			"node_cpu_usage_seconds_total 3 8000\n",
			"node_memory_working_set_bytes 20 8000\n",
			`pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 2 8000` + "\n",
			`container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 9 8000` + "\n",
			`container_start_time_seconds{container="c",namespace="ns",pod="p"} 5` + "\n",
			"resource_scrape_error 0\n",
		},
		"/metrics":        {"node_total 0\n"},
		"/metrics/probes": {"probes_total 0\n"},
	} {
		code, body := w.get(t, path)
		for _, line := range want {
			if code != http.StatusOK || !strings.Contains(body, line) {
				t.Errorf("%s has no %q: %d\n%s", path, line, code, body)
			}
		}
	}
}
