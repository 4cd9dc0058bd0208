//go:build cluster

package cluster_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// load is how many pods must succeed while something goes wrong; each fifth fails besides.
const load = 2000

// quick are lease times with which tests needn't wait for long.
var quick = []string{"--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"}

// steady are short ones with which a leader alone keeps its lease on a busy machine, too.
var steady = []string{"--leader-elect-lease-duration=10s", "--leader-elect-renew-deadline=8s", "--leader-elect-retry-period=500ms"}

// loaded is a Job under load.
type loaded struct {
	*world
	name   string
	player *cluster.Player
	began  time.Time
}

// startLoad makes a Job of 2,000 completions, of a mode, and ends its pods as fast as they come.
func (w *world) startLoad(name string, mode batchv1.CompletionMode) *loaded {
	w.t.Helper()
	s := spec{CompletionMode: &mode, Completions: ptr.To[int32](load), Parallelism: ptr.To[int32](100), BackoffLimit: ptr.To[int32](load)}
	return &loaded{world: w, name: name, began: time.Now(), player: w.run(name, s, failNth(5))}
}

// counted returns once so many pods have been counted.
func (l *loaded) counted(n int32) {
	l.t.Helper()
	l.until(l.name, fmt.Sprintf("at %d", n), func(j *batchv1.Job) bool { return j.Status.Succeeded+j.Status.Failed >= n })
}

// exact waits for the Job's end and wants each pod counted once: as many as have ended, and as many made as ended. No pod of such a Job
// is ever deleted, so that those that are there are all that were.
func (l *loaded) exact() {
	l.t.Helper()
	j := l.until(l.name, "finished", finished)
	var succeeded, failed int32
	for _, p := range l.pods(l.name) {
		switch p.Status.Phase {
		case corev1.PodSucceeded:
			succeeded++
		case corev1.PodFailed:
			failed++
		default:
			l.t.Errorf("pod %s is still %s", p.Name, p.Status.Phase)
		}
		if len(p.Finalizers) > 0 {
			l.t.Errorf("pod %s still has %v", p.Name, p.Finalizers)
		}
	}
	playedSucceeded, playedFailed := l.player.Ends()
	s := j.Status
	if condition(j, batchv1.JobComplete) == nil || s.Succeeded != load || s.Failed != failed ||
		succeeded != load || playedSucceeded != load || playedFailed != failed {
		l.t.Errorf("the Job counts %d succeeded and %d failed, want %d; there are %d and %d, and %d and %d were ended", s.Succeeded, s.Failed, load,
			succeeded, failed, playedSucceeded, playedFailed)
	}
	l.t.Logf("%s: %d pods made, %d succeeded, %d failed, in %s", l.name, l.player.Seen(), succeeded, failed, time.Since(l.began).Round(100*time.Millisecond))
}

// Two replicas: the leader goes amid a Job's work, in each way that there is.
func TestLeaderGoes(t *testing.T) {
	c := startCluster(t, withoutJobs)
	w := newWorld(t, c, "load", managedByErrand)
	leader := startController(t, c, steady...)
	for _, how := range []struct {
		name string
		mode batchv1.CompletionMode
		goes func(t *testing.T, l *loaded, leader, standby *cluster.Process)
	}{
		{"sigterm", batchv1.NonIndexedCompletion, isAskedToEnd}, {"sigkill", batchv1.IndexedCompletion, dies}, {"sigstop", batchv1.NonIndexedCompletion, sleeps},
		{"sigstop-indexed", batchv1.IndexedCompletion, sleeps},
	} {
		if !t.Run(how.name, func(t *testing.T) {
			standby, err := c.StartController(append(impatient, steady...)...)
			must(t, err)
			must(t, cluster.AwaitStandby(t.Context(), standby))
			l := w.with(t).startLoad(how.name, how.mode)
			l.counted(load / 4)
			how.goes(t, l, leader, standby)
			leader = standby
			whileRuns(t, leader, l.exact)
			wantCreated(t, c, l)
		}) {
			return
		}
	}
}

// whileRuns does something for which a process has to run, and tells if it ended meanwhile.
func whileRuns(t *testing.T, p *cluster.Process, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	go func() {
		defer close(told)
		if code, err := p.Ended(ctx); err == nil {
			t.Errorf("%s (pid %d) has ended with %d amid its work; it said:\n%s", p.Name, p.PID(), code, p.Said)
		}
	}()
	defer func() { cancel(); <-told }()
	do()
}

func isAskedToEnd(t *testing.T, _ *loaded, leader, standby *cluster.Process) {
	began := time.Now()
	must(t, leader.Signal(syscall.SIGTERM))
	must(t, cluster.AwaitController(t.Context(), standby))
	t.Logf("the hand-over took %s", time.Since(began).Round(time.Millisecond))
	wantCode(t, leader, 0)
}

func dies(t *testing.T, _ *loaded, leader, standby *cluster.Process) {
	began := time.Now()
	must(t, leader.Kill())
	must(t, cluster.AwaitController(t.Context(), standby))
	t.Logf("it was followed after %s", time.Since(began).Round(time.Millisecond))
}

// sleeps stops the leader, and wakes it while its successor is at work.
func sleeps(t *testing.T, l *loaded, leader, standby *cluster.Process) {
	began := time.Now()
	must(t, leader.Signal(syscall.SIGSTOP))
	must(t, cluster.AwaitController(t.Context(), standby))
	t.Logf("it was followed after %s", time.Since(began).Round(time.Millisecond))
	l.counted(load / 2)
	must(t, leader.Signal(syscall.SIGCONT))
	wantCode(t, leader, 1)
}

func wantCode(t *testing.T, p *cluster.Process, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if code, err := p.Ended(ctx); err != nil {
		t.Error(err)
	} else if code != want {
		t.Errorf("%s (pid %d) ended with %d, want %d; it said:\n%s", p.Name, p.PID(), code, want, p.Said)
	}
}

// wantCreated wants the API server to have made as many pods as were seen, and to have deleted none.
func wantCreated(t *testing.T, c *cluster.Cluster, l *loaded) {
	t.Helper()
	created := 0
	for _, w := range writes(t, c) {
		if w.namespace != l.namespace || w.resource != "pods" || w.user != cluster.ErrandUser || !isPodOf(w.name, l.name) {
			continue
		}
		switch w.verb {
		case "create":
			created++
		case "delete":
			t.Errorf("a pod was deleted: %s", w)
		}
	}
	if created != l.player.Seen() {
		t.Errorf("the API server has made %d pods, of which %d were seen", created, l.player.Seen())
	}
}

// isPodOf says whether a pod's name is JOB-RANDOM or JOB-INDEX-RANDOM.
func isPodOf(pod, job string) bool {
	rest, ok := strings.CutPrefix(pod, job+"-")
	index, _, indexed := strings.Cut(rest, "-")
	_, err := strconv.Atoi(index)
	return ok && (!indexed || err == nil)
}

// supervise runs an errand controller until the test's end, and another once it has ended, as a Deployment does: one that can't renew its
// lease for as long as the API server is away gives up.
func supervise(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	first := startController(t, c)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan int)
	go func() {
		defer close(over)
		for n, p := 0, first; ; n++ {
			if _, err := p.Ended(ctx); err != nil {
				over <- n
				return
			}
			var err error
			if p, err = c.StartController(impatient...); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		t.Logf("errand controller was started %d times again", <-over)
	})
}

// The API server goes amid a Job's work, and comes back. Asked to end, it takes a minute over it, for as long as watches are open; after
// that, the watches of client-go that the tests themselves have are tried again up to a minute apart.
func TestAPIServerGoes(t *testing.T) {
	c := startCluster(t, withoutJobs)
	w := newWorld(t, c, "load", managedByErrand)
	supervise(t, c)
	for _, how := range []struct {
		name string
		mode batchv1.CompletionMode
		goes []func(*cluster.Process) error
	}{
		{"killed", batchv1.NonIndexedCompletion, []func(*cluster.Process) error{(*cluster.Process).Kill, (*cluster.Process).Kill}},
		{"asked", batchv1.IndexedCompletion, []func(*cluster.Process) error{askToEnd, (*cluster.Process).Kill}},
	} {
		t.Run(how.name, func(t *testing.T) {
			l := w.with(t).startLoad(how.name, how.mode)
			for i, goes := range how.goes {
				l.counted(load / 4 * int32(i+1))
				restartAPI(t, c, goes)
			}
			l.exact()
		})
	}
}

func askToEnd(p *cluster.Process) error { return p.Signal(syscall.SIGTERM) }

func restartAPI(t *testing.T, c *cluster.Cluster, goes func(*cluster.Process) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began, old := time.Now(), c.API()
	must(t, goes(old))
	_, err := old.Ended(ctx)
	must(t, err)
	ended := time.Now()
	must(t, c.StartAPI(t.Context()))
	t.Logf("the API server ended after %s, and was there again after %s", ended.Sub(began).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
}
