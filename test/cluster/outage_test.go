//go:build cluster

package cluster_test

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"errand.dev/errand/test/cluster"
)

// afterOutage is how long after an outage a pod's end may take to be counted: far below the minute that client-go's watches come to wait.
const afterOutage = 10 * time.Second

// An API server that is away for longer than a lease costs the leader its place. Once it is back, a replica that has waited acts, with
// caches that are fed again; so does one that had to be started while there was no API server at all.
func TestFollowedAfterAnOutage(t *testing.T) {
	c := startCluster(t, withoutJobs)
	w := newWorld(t, c, "outage", managedByErrand)
	start := func() *cluster.Process {
		p, err := c.StartController(append(impatient, quick...)...)
		must(t, err)
		return p
	}
	leader := startController(t, c, quick...)
	for _, name := range []string{"hot", "cold"} {
		var next *cluster.Process
		if name == "hot" {
			next = start()
			must(t, cluster.AwaitStandby(t.Context(), next))
		}
		w.create(name, spec{})
		w.until(name, "active", func(j *batchv1.Job) bool { return j.Status.Active == 1 })
		must(t, c.API().Kill())
		wantCode(t, leader, 1)
		if name == "cold" {
			next = start()
			must(t, cluster.AwaitRefused(t.Context(), next))
		}
		must(t, c.StartAPI(t.Context()))
		back := time.Now()
		for _, p := range w.pods(name) {
			must(t, cluster.EndPod(t.Context(), w.client, w.namespace, p.Name, cluster.End{}))
		}
		must(t, cluster.AwaitController(t.Context(), next))
		acts := time.Since(back)
		w.until(name, "finished", finished)
		took := time.Since(back)
		t.Logf("%s: it acts %s after the outage, and has counted what ended after %s", name, acts.Round(time.Millisecond), took.Round(time.Millisecond))
		if took > afterOutage {
			t.Errorf("the %s replica took %s", name, took)
		}
		leader = next
	}
}
