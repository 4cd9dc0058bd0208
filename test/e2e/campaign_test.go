//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// How the campaigns go: `go test -tags e2e,slow -run SlowKillAnything ./test/e2e -args -kills 1000`.
var (
	campaignSeed  = flag.Uint64("kill-seed", 0, "the seed of the kills' moments and victims; 0 is a new one")
	campaignKills = flag.Int("kills", 300, "how often the slow campaign kills")
	campaignRate  = flag.Float64("kill-rate", 20, "how many pods a second are made meanwhile, as far as the machine keeps up")
	campaignOf    = flag.String("kill-of", "serve=3,shim=2,both=1,init=7,runtime=5,launch=3", "how often each victim is killed, relative to the others")
)

// Everything that errand consists of, and what it runs, dies at random moments
// while Jobs of all kinds come and go.
func TestKillAnything(t *testing.T) {
	campaign(t, 20, min(*campaignRate, 8))
}

// campaign kills so often while there are so many pods a second. No pod is stuck
// then, nothing is left behind, and every exit code is the one that the
// container's ledger tells, or is said to be lost.
func campaign(t *testing.T, kills int, rate float64) {
	seed := *campaignSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-kill-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	of := parseProportions(t, *campaignOf)

	e := start(t, "--pod-failure-backoff=10ms", "--max-pod-failure-backoff=100ms", "-v=2")
	e.keepLogs()
	check := e.stock()
	k := newKiller(e, random)
	c := e.startChurn(rate, seed, &k.hits)
	began := time.Now()
	for i, missed := 0, 0; i < kills; {
		// A pause of random length is the point here: what is waited for is any moment.
		pause := time.NewTimer(time.Duration(random.IntN(800)) * time.Millisecond)
		<-pause.C
		if k.kill(of.pick(random)) {
			i++
		} else if missed++; missed > 10*kills {
			t.Fatalf("after %d kills there is nothing to kill: %v", i, k.done)
		}
	}
	k.revive()
	c.end()
	took := time.Since(began)
	t.Logf("%d Jobs with %d pods in %s, %.1f a second, though for %s there were too many already; killed: %v",
		len(c.jobs), c.pods, took.Round(time.Second), float64(c.pods)/took.Seconds(), c.held, k.done)

	for name, kind := range c.jobs {
		if kind.ends != "" && (!c.settled[name] || c.kept[name]) {
			e.wantEnd(name, c)
		}
	}
	t.Logf("containers that did not end by themselves: %v", c.lost)
	background := metav1.DeletePropagationBackground
	if err := e.client.BatchV1().Jobs("default").DeleteCollection(t.Context(), metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	e.awaitNoPods()
	check()
}

// wantEnd waits for a Job's end, and judges it.
func (e *errand) wantEnd(name string, c *churn) {
	e.t.Helper()
	j, err := e.client.BatchV1().Jobs("default").Get(e.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		e.t.Error(err)
		return
	}
	if !finished(j) {
		// Some containers have been killed so often that their next start is far away.
		j = e.until(name, finished)
	}
	c.judge(j, e.pods(name), c.entries())
}

// judge compares a Job that has ended with its pods, and those with the ledger.
func (c *churn) judge(j *batchv1.Job, pods []v1.Pod, ledger map[string]ledgerEntry) {
	c.t.Helper()
	kind := c.kind(j.Name)
	if !slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == kind.ends && c.Status == v1.ConditionTrue }) {
		c.t.Errorf("Job %s: no condition %s: %+v", j.Name, kind.ends, j.Status)
	}
	phases := map[v1.PodPhase]int32{}
	for i := range pods {
		phases[pods[i].Status.Phase]++
		c.judgeCodes(&pods[i], ledger)
	}
	s := j.Status
	if s.Succeeded != kind.succeeded || s.Succeeded != phases[v1.PodSucceeded] || s.Failed != phases[v1.PodFailed] || s.Active != 0 || len(phases) > 2 ||
		s.UncountedTerminatedPods != nil && len(s.UncountedTerminatedPods.Succeeded)+len(s.UncountedTerminatedPods.Failed) > 0 {
		c.t.Errorf("Job %s: want %d succeeded; of its pods there are %v, and its status is %+v", j.Name, kind.succeeded, phases, s)
	}
}

// judgeCodes compares the ends of a pod's containers with the ledger.
func (c *churn) judgeCodes(p *v1.Pod, ledger map[string]ledgerEntry) {
	c.t.Helper()
	for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		// Where processes share a namespace, they end with the first one in it.
		shared := p.Spec.ShareProcessNamespace != nil && c.hits.has(string(p.UID))
		killed := func(id string) bool { return c.hits.has(id) || shared }
		if flaw := wrongCodes(st, ledger[p.Name+"/"+st.Name], killed, c.lost); flaw != "" {
			c.t.Errorf("pod %s, container %s: %s: %+v, in the ledger %+v", p.Name, st.Name, flaw, st, ledger[p.Name+"/"+st.Name])
		}
	}
}

// wrongCodes says what is wrong with a container's status, given what its runs
// wrote into the ledger and which containers' processes were killed.
func wrongCodes(st v1.ContainerStatus, ledger ledgerEntry, killed func(id string) bool, lost map[string]int) string {
	if runs := int(st.RestartCount) + 1; ledger.starts > runs || len(ledger.codes) > ledger.starts {
		return fmt.Sprintf("at most %d runs", runs)
	}
	if st.State.Running != nil {
		return "it runs, though its Job has ended"
	}
	for _, end := range []*v1.ContainerStateTerminated{st.LastTerminationState.Terminated, st.State.Terminated} {
		if end == nil {
			continue
		}
		own := slices.Contains(ledger.codes, end.ExitCode)
		if last := len(ledger.codes) - 1; end == st.State.Terminated && own {
			own = ledger.codes[last] == end.ExitCode
		}
		_, id, _ := strings.Cut(end.ContainerID, "://")
		switch {
		case own:
		case end.ExitCode == 137 && (end.Reason == "ShimLost" || end.Reason == "ContainerStatusUnknown"),
			end.ExitCode == 128 && end.Reason == "StartError":
			lost[end.Reason]++
		case end.ExitCode == 137 && killed(id):
			lost["killed"]++
		default:
			return fmt.Sprintf("exit code %d", end.ExitCode)
		}
	}
	return ""
}

// awaitNoPods waits until the last pod has gone.
func (e *errand) awaitNoPods() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 2*patience)
	defer cancel()
	pods := e.client.CoreV1().Pods("default")
	lw := &cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		WatchFuncWithContext: pods.Watch,
	}
	none := func(s cache.Store) (bool, error) { return len(s.List()) == 0, nil }
	there := map[string]bool{}
	_, err := watchtools.UntilWithSync(ctx, lw, &v1.Pod{}, none, func(event watch.Event) (bool, error) {
		p, ok := event.Object.(*v1.Pod)
		if !ok {
			return false, fmt.Errorf("%s %T", event.Type, event.Object)
		}
		if event.Type == watch.Deleted {
			delete(there, p.Name)
		} else {
			there[p.Name] = true
		}
		return len(there) == 0, nil
	})
	if err != nil {
		e.t.Errorf("pods that stay, though they are deleted (%v):\n%s", err, e.kubectl("get", "pods", "-o", "wide"))
	}
}
