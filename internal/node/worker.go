package node

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/node/imagepull"
	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/probe"
	"errand.dev/errand/internal/node/resize"
	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/node/volumes"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/apipod"
)

// Delays between attempts after something failed that is worth trying again.
const (
	retryInitial = time.Second
	retryMax     = 10 * time.Second
)

// worker looks after one pod. It is woken by kick and then has a goroutine until
// it has nothing more to do; sync is never called concurrently with itself.
type worker struct {
	n      *Node
	uid    types.UID
	status *statusWriter
	probes *probe.Pod
	done   chan struct{}
	// removed is closed once nothing is left of the pod and this is its worker no more.
	removed chan struct{}

	mu     sync.Mutex
	pod    *v1.Pod // as the API has it; nil if only the runtime knows the pod
	trace  podtrace.Pod
	isGone bool            // the API doesn't have it (any more)
	unfit  *resize.Refusal // why the node has no room for it
	news   bool            // the pod has changed since sync last looked at it
	dirty  bool
	active bool
	stale  bool             // volumes are to be refreshed
	fresh  bool             // what containers await may be there
	evict  *evictionOrder   // asked for and not yet heeded
	pulls  map[string]*pull // of images that containers wait for
	pulled time.Duration    // how long images have been pulled
	stops  map[string]*stop // by container ID

	// All below belongs to sync.

	seen     time.Time
	last     *v1.PodStatus                    // the status generated last
	ended    map[string]*runtimepod.Container // runs that are over, by container ID
	waiting  map[string]podstatus.Waiting     // why containers couldn't be started
	greets   map[string]*greeting             // postStart hooks, by container ID
	holds    map[string]time.Time             // containers not to be started before
	awaits   map[string]bool                  // containers whose environment lacks an object
	tries    map[string]int                   // failed attempts to start them in a row
	crashes  map[string]plan.CrashLoop        // back-off by container
	found    map[string]imagepull.Image       // images for the next start of containers
	defined  map[string]string                // definitions that the five above are about
	vols     map[string]volumes.Volume        // nil until set up
	metadata string                           // that volumes show
	resizing resizing                         // in-place
	// Whether the runtime can mount recursively read-only, and whether it has said so.
	recursive, askedForRecursive bool

	ending   *ending         // set once nothing is started any more
	finished bool            // everything local is ended and freed: then done is closed
	told     map[string]bool // events to be told once
	failures int             // syncs that failed in a row
	retryAt  time.Time
	round    int32     // of all containers, the last that was announced
	wakeAt   time.Time // when the first hold met in this sync is over
	timer    clock.Timer
}

// ending is why and how a pod ends.
type ending struct {
	outcome *podstatus.Outcome // what the node decided, nil if the containers did
	most    *time.Duration     // the longest grace period, whatever the pod's; nil is any
	grace   time.Duration
	killBy  time.Time
	// An outcome that is to be announced is, before any container is stopped for
	// it: stopping. It isn't waited for longer than tellBy.
	stopping bool
	tellBy   time.Time
}

func newWorker(n *Node, uid types.UID, now time.Time) *worker {
	w := &worker{
		n:       n,
		uid:     uid,
		pulls:   map[string]*pull{},
		stops:   map[string]*stop{},
		seen:    now,
		ended:   map[string]*runtimepod.Container{},
		waiting: map[string]podstatus.Waiting{},
		greets:  map[string]*greeting{},
		holds:   map[string]time.Time{},
		awaits:  map[string]bool{},
		tries:   map[string]int{},
		crashes: map[string]plan.CrashLoop{},
		found:   map[string]imagepull.Image{},
		defined: map[string]string{},
		told:    map[string]bool{},
		done:    make(chan struct{}),
		removed: make(chan struct{}),
	}
	w.status = newStatusWriter(n, uid)
	w.probes = n.prober.Pod(w.kick)
	return w
}

// update takes the pod as the API now has it.
func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	first := w.pod == nil
	news := first || concernsSync(w.pod, pod)
	w.news = w.news || news
	if w.pod == nil && !isTerminal(pod.Status.Phase) {
		w.trace = w.n.cfg.Traces.Pod(apipod.Identity(pod))
		w.trace.Mark("PodSeen")
	}
	w.pod = pod
	w.mu.Unlock()
	switch {
	case isTerminal(pod.Status.Phase):
		w.release()
	case first && pod.Status.StartTime != nil:
		w.n.ledger.Put(resize.Given(pod)) // admitted by an agent before
	case first:
		w.setUnfit(w.n.ledger.Admit(pod))
	}
	w.status.observed(pod)
	if news {
		w.kick()
	}
}

// setUnfit notes that there is no room for the pod.
func (w *worker) setUnfit(why *resize.Refusal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unfit = why
}

// concernsSync tells whether a change is more than the echo of a status that was
// written.
func concernsSync(old, pod *v1.Pod) bool {
	return old.Generation != pod.Generation ||
		!old.DeletionTimestamp.Equal(pod.DeletionTimestamp) ||
		!equality.Semantic.DeepEqual(old.DeletionGracePeriodSeconds, pod.DeletionGracePeriodSeconds) ||
		!equality.Semantic.DeepEqual(old.Spec, pod.Spec) ||
		!equality.Semantic.DeepEqual(old.Labels, pod.Labels) ||
		!equality.Semantic.DeepEqual(old.Annotations, pod.Annotations) ||
		isTerminal(pod.Status.Phase) && !isTerminal(old.Status.Phase) ||
		len(pod.Spec.ReadinessGates) > 0 && !equality.Semantic.DeepEqual(old.Status.Conditions, pod.Status.Conditions)
}

func isTerminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

// gone tells that the API has no such pod any more. pod is its last state, nil
// if unknown.
func (w *worker) gone(pod *v1.Pod) {
	w.mu.Lock()
	if pod != nil {
		w.pod = pod
	}
	w.isGone, w.news = true, true
	w.mu.Unlock()
	w.release()
	w.status.stop()
	w.kick()
}

// orphaned is gone for a pod of which only traces were found. It does nothing, and
// returns false, if the API turns out to have had the pod.
func (w *worker) orphaned() bool {
	w.mu.Lock()
	known := w.pod != nil
	if !known {
		w.isGone, w.news = true, true
	}
	w.mu.Unlock()
	if known {
		return false
	}
	w.status.stop()
	w.kick()
	return true
}

// objectsChanged has volumes brought up to date, or set up anew if they failed, and
// containers tried again for whose environment an object was missing.
func (w *worker) objectsChanged() {
	w.mu.Lock()
	w.stale, w.fresh = true, true
	w.mu.Unlock()
	w.kick()
}

// kick makes the worker look at its pod. It never blocks.
func (w *worker) kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
	if !w.active {
		w.active = w.n.spawn(w.loop)
	}
}

func (w *worker) loop(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("podUID", w.uid))
	for w.takeDirty(ctx) {
		err := w.sync(ctx)
		w.settle(ctx, err)
		w.wakeAt = time.Time{}
	}
}

func (w *worker) takeDirty(ctx context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dirty || ctx.Err() != nil {
		w.active = false
		return false
	}
	w.dirty = false
	return true
}

// hasNews tells whether the pod has changed since sync began: what it was about to
// do may be wrong by now.
func (w *worker) hasNews() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news
}

// snapshot returns the pod for a sync to work on.
func (w *worker) snapshot() (pod *v1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.news = false
	return w.pod, w.isGone
}

// traced returns what records where the pod's time goes.
func (w *worker) traced() podtrace.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trace
}

// latest returns the pod as the API now has it, nil if unknown.
func (w *worker) latest() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// takeStale tells, once, that volumes are to be refreshed.
func (w *worker) takeStale() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := w.stale
	w.stale = false
	return stale
}

// stopAwaiting lets containers be tried again if what they await may be there. It is
// asked before any object is read, so that none is missed.
func (w *worker) stopAwaiting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fresh {
		clear(w.awaits)
	}
	w.fresh = false
}

// settle arranges for the next look: at the end of a back-off, at a deadline,
// or some time after an error.
func (w *worker) settle(ctx context.Context, err error) {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if ctx.Err() != nil {
		return
	}
	now := w.n.cfg.Clock.Now()
	w.retryAt = time.Time{}
	if err != nil {
		w.retryAt = now.Add(w.retryDelay())
		w.failures++
		klog.FromContext(ctx).V(2).Info("Pod sync failed; trying again", "err", err, "at", w.retryAt)
	} else {
		w.failures = 0
	}
	next := earliest(earliest(w.retryAt, w.wakeAt), w.deadline())
	switch {
	case next.IsZero():
	case next.After(now):
		w.timer = w.n.cfg.Clock.AfterFunc(next.Sub(now), w.kick)
	default:
		w.kick()
	}
}

// holdUntil keeps a container from being started before, and has the worker
// look again then.
func (w *worker) holdUntil(container string, at time.Time) {
	w.holds[container] = at
	w.wakeAt = earliest(w.wakeAt, at)
}

// redefined drops what held a container back, or was fetched for it, if it has been
// given another definition since: its new image deserves a try at once.
func (w *worker) redefined(c *v1.Container) {
	definition := runtimepod.Definition(c)
	if w.defined[c.Name] != definition {
		delete(w.holds, c.Name)
		delete(w.awaits, c.Name)
		delete(w.tries, c.Name)
		delete(w.crashes, c.Name)
		delete(w.found, c.Name)
	}
	w.defined[c.Name] = definition
}

func (w *worker) retryDelay() time.Duration {
	return min(retryInitial<<min(w.failures, 10), retryMax)
}

// earliest returns the earlier of two times, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// deadline is when the pod's activeDeadlineSeconds are over, zero if it has none
// or ends anyway.
func (w *worker) deadline() time.Time {
	pod := w.latest()
	if pod == nil || pod.Spec.ActiveDeadlineSeconds == nil || w.ending != nil {
		return time.Time{}
	}
	start := pod.Status.StartTime
	if w.last != nil && w.last.StartTime != nil {
		start = w.last.StartTime
	}
	if start == nil {
		return time.Time{}
	}
	return start.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
}

// once tells true the first time it is asked for the name.
func (w *worker) once(name string) bool {
	first := !w.told[name]
	w.told[name] = true
	return first
}
