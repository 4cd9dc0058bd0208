package resourcemetrics

import (
	"fmt"
	"io"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// counters are what one container or node has used up to a time.
type counters struct {
	at      time.Time
	cpu     time.Duration // CPU time
	memory  int64         // working set in bytes
	started time.Time     // zero for a node
	// The counter is there, and the working set is.
	hasCPU, hasMemory bool
}

// podKey names a pod.
type podKey struct{ namespace, name string }

// nodeReading is what one node told.
type nodeReading struct {
	node counters
	pods map[podKey]map[string]*counters // by container
}

// Names at a node's /metrics/resource (KEP-727).
const (
	nodeCPU         = "node_cpu_usage_seconds_total"
	nodeMemory      = "node_memory_working_set_bytes"
	containerCPU    = "container_cpu_usage_seconds_total"
	containerMemory = "container_memory_working_set_bytes"
	containerStart  = "container_start_time_seconds"
)

// parse reads the text of /metrics/resource. What carries no time of its own is
// of now.
func parse(r io.Reader, now time.Time) (*nodeReading, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("parse /metrics/resource: %w", err)
	}
	out := &nodeReading{pods: map[podKey]map[string]*counters{}}
	for _, m := range families[nodeCPU].GetMetric() {
		out.node.setCPU(m, now)
	}
	for _, m := range families[nodeMemory].GetMetric() {
		out.node.setMemory(m, now)
	}
	for _, m := range families[containerCPU].GetMetric() {
		out.container(m).setCPU(m, now)
	}
	for _, m := range families[containerMemory].GetMetric() {
		out.container(m).setMemory(m, now)
	}
	for _, m := range families[containerStart].GetMetric() {
		seconds, fraction := math.Modf(value(m))
		out.container(m).started = time.Unix(int64(seconds), int64(fraction*1e9))
	}
	return out, nil
}

func (n *nodeReading) container(m *dto.Metric) *counters {
	var pod podKey
	name := ""
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "namespace":
			pod.namespace = l.GetValue()
		case "pod":
			pod.name = l.GetValue()
		case "container":
			name = l.GetValue()
		}
	}
	if n.pods[pod] == nil {
		n.pods[pod] = map[string]*counters{}
	}
	c := n.pods[pod][name]
	if c == nil {
		c = &counters{}
		n.pods[pod][name] = c
	}
	return c
}

func (c *counters) setCPU(m *dto.Metric, now time.Time) {
	c.at, c.cpu, c.hasCPU = timeOf(m, now), time.Duration(value(m)*float64(time.Second)), true
}

func (c *counters) setMemory(m *dto.Metric, now time.Time) {
	if c.at.IsZero() {
		c.at = timeOf(m, now)
	}
	c.memory, c.hasMemory = int64(value(m)), true
}

func timeOf(m *dto.Metric, now time.Time) time.Time {
	if ms := m.GetTimestampMs(); ms != 0 {
		return time.UnixMilli(ms)
	}
	return now
}

// value is a sample's, whatever type the text said that it is of.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	default:
		return m.Untyped.GetValue()
	}
}
