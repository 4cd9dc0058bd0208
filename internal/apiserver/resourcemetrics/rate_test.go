package resourcemetrics

import (
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	c := func(now, started, cpu float64) *counters {
		return &counters{at: at(now), started: at(started), cpu: time.Duration(cpu * float64(time.Second)), memory: 7, hasCPU: true, hasMemory: true}
	}
	without := func(c *counters, change func(*counters)) *counters { change(c); return c }
	for name, tc := range map[string]struct {
		before, now *counters
		milli       int64
		window      time.Duration
		none        bool
	}{
		"half a core over two seconds":            {before: c(10, 0, 3), now: c(12, 0, 4), milli: 500, window: 2 * time.Second},
		"nothing used":                            {before: c(10, 0, 3), now: c(12, 0, 3), milli: 0, window: 2 * time.Second},
		"started since":                           {before: nil, now: c(12, 11.5, 0.5), milli: 1000, window: 500 * time.Millisecond},
		"started anew since":                      {before: c(10, 0, 9), now: c(12, 11, 0.25), milli: 250, window: time.Second},
		"started this moment":                     {before: nil, now: c(12, 11.95, 0.04), none: true},
		"no time between the readings":            {before: c(12, 0, 3), now: c(12, 0, 3), none: true},
		"the counter has fallen":                  {before: c(10, 0, 9), now: c(12, 0, 1), none: true},
		"no working set":                          {before: c(10, 0, 3), now: without(c(12, 0, 4), func(c *counters) { c.hasMemory = false }), none: true},
		"no CPU":                                  {before: c(10, 0, 3), now: without(c(12, 0, 4), func(c *counters) { c.hasCPU = false }), none: true},
		"a node, which tells no start":            {before: without(c(10, 0, 3), notStarted), now: without(c(12, 0, 5), notStarted), milli: 1000, window: 2 * time.Second},
		"a node that is asked for the first time": {now: without(c(12, 0, 5), notStarted), none: true},
	} {
		t.Run(name, func(t *testing.T) {
			u, ok := rate(tc.before, tc.now)
			if ok == tc.none {
				t.Fatalf("got %+v, %v", u, ok)
			}
			if ok && (u.nanoCPU != tc.milli*1e6 || u.window != tc.window || u.memory != 7 || !u.at.Equal(tc.now.at)) {
				t.Errorf("got %+v", u)
			}
		})
	}
}

func notStarted(c *counters) { c.started = time.Time{} }

func TestParse(t *testing.T) {
	now := time.Unix(50, 0)
	got, err := parse(strings.NewReader(`
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 1.5 40000
container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 9 40000
container_start_time_seconds{container="c",namespace="ns",pod="p"} 30.25
node_cpu_usage_seconds_total 100
node_memory_working_set_bytes 2e+09
something_else 3
`), now)
	if err != nil {
		t.Fatal(err)
	}
	c := got.pods[podKey{"ns", "p"}]["c"]
	if c == nil || c.cpu != 1500*time.Millisecond || c.memory != 9 || !c.at.Equal(time.Unix(40, 0)) || !c.started.Equal(time.UnixMilli(30250)) {
		t.Errorf("the container: %+v", c)
	}
	if n := got.node; n.cpu != 100*time.Second || n.memory != 2e9 || !n.at.Equal(now) {
		t.Errorf("the node: %+v", n)
	}
	if _, err := parse(strings.NewReader("<html>"), now); err == nil {
		t.Error("a web page is no error")
	}
}
