package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
)

// world is an engine on a fakeAPI, with informers, a queue and a clock that the test drives by hand: nothing happens by itself.
type world struct {
	t     testing.TB
	api   *fakeAPI
	clock *clocktesting.FakePassiveClock
	lim   limits
	// manager that the engine is.
	manager string

	engine *engine
	events *eventLog

	// cursors into api.log, and what the informers' caches hold there.
	podsAt, jobsAt int
	// bootedAt is the length of api.log when the engine was started.
	bootedAt int
	podCache map[types.UID]*corev1.Pod
	jobCache map[types.UID]*batchv1.Job

	due    []types.UID // Jobs to sync, in order
	loose  []loosePod
	timers map[types.UID]time.Time
	ttls   map[types.UID]time.Time
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, clock: clocktesting.NewFakePassiveClock(epoch), events: &eventLog{}, manager: batchv1.JobControllerName,
		lim: limits{PodFailureBackoff: DefaultPodFailureBackoff, MaxPodFailureBackoff: DefaultMaxPodFailureBackoff}}
	w.api = newFakeAPI(w.clock)
	w.api.rejected = func(err error) { t.Errorf("the API refuses a status: %v", err) }
	w.boot(0, 0)
	return w
}

// boot starts a new engine, whose informers list what was true jobsBehind and podsBehind changes ago.
func (w *world) boot(jobsBehind, podsBehind int) {
	w.timers, w.ttls, w.due, w.loose = map[types.UID]time.Time{}, map[types.UID]time.Time{}, nil, nil
	w.bootedAt = len(w.api.log)
	m := newMetrics()
	w.engine = &engine{
		client: fakeClient{api: w.api}, recorder: w.events, clock: w.clock, caches: w, wake: w, limits: w.lim,
		manager: w.manager, inFlight: 1, metrics: m, registry: newRegistry(),
	}
	w.engine.reaper = newReaper(w.engine.client, w.clock, m, func(uid types.UID, after time.Duration) { w.ttls[uid] = w.clock.Now().Add(after) })

	w.podCache = map[types.UID]*corev1.Pod{}
	w.podsAt = max(len(w.api.log)-podsBehind, 0)
	w.jobsAt = max(len(w.api.log)-jobsBehind, 0)
	w.jobCache = map[types.UID]*batchv1.Job{}
	for i, c := range w.api.log {
		if i < w.podsAt {
			cacheChange(w.podCache, c)
		}
		if i < w.jobsAt {
			cacheChange(w.jobCache, c)
		}
	}
	for _, uid := range sortedKeys(w.podCache) {
		w.engine.podChanged(nil, w.podCache[uid], fromInitialList)
	}
	for _, uid := range sortedKeys(w.jobCache) {
		w.engine.jobChanged(w.jobCache[uid], fromInitialList)
	}
}

func sortedKeys[V any](m map[types.UID]V) []types.UID {
	keys := make([]types.UID, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// cacheChange does to a cache what the change did to the store, if it is about its kind of object.
func cacheChange[T metav1.Object](cache map[types.UID]T, c change) {
	if obj, ok := c.new.(T); ok {
		cache[obj.GetUID()] = obj
	} else if obj, ok := c.old.(T); ok {
		delete(cache, obj.GetUID())
	}
}

func (w *world) revisionAt(cursor int) string {
	if cursor == 0 {
		return "100"
	}
	return strconv.Itoa(w.api.log[cursor-1].revision)
}

// PodsVersion implements caches.
func (w *world) PodsVersion() string { return w.revisionAt(w.podsAt) }

// JobsVersion implements caches.
func (w *world) JobsVersion() string { return w.revisionAt(w.jobsAt) }

// PodsOf implements caches.
func (w *world) PodsOf(uid types.UID) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, k := range sortedKeys(w.podCache) {
		if owner, _ := jobOwner(w.podCache[k]); owner != nil && owner.UID == uid {
			pods = append(pods, w.podCache[k])
		}
	}
	return pods
}

// JobNamed implements caches.
func (w *world) JobNamed(namespace, name string) *batchv1.Job {
	for _, job := range w.jobCache {
		if job.Namespace == namespace && job.Name == name {
			return job
		}
	}
	return nil
}

// Job implements wakeups.
func (w *world) Job(uid types.UID, after time.Duration) {
	if after > 0 {
		w.timers[uid] = w.clock.Now().Add(after)
	} else if !slices.Contains(w.due, uid) {
		w.due = append(w.due, uid)
	}
}

// Loose implements wakeups.
func (w *world) Loose(pod types.NamespacedName, uid types.UID) {
	if k := (loosePod{pod, uid}); !slices.Contains(w.loose, k) {
		w.loose = append(w.loose, k)
	}
}

// deliverPods and deliverJobs hand the next event of their kind to the engine, as the informers would; false: there is none.
func (w *world) deliverPods() bool {
	for w.podsAt < len(w.api.log) {
		c := w.api.log[w.podsAt]
		w.podsAt++
		old, _ := c.old.(*corev1.Pod)
		pod, _ := c.new.(*corev1.Pod)
		if old == nil && pod == nil {
			continue
		}
		cacheChange(w.podCache, c)
		if pod == nil {
			w.engine.podGone(old)
		} else {
			w.engine.podChanged(old, pod, fromInformer)
		}
		return true
	}
	return false
}

func (w *world) deliverJobs() bool {
	for w.jobsAt < len(w.api.log) {
		c := w.api.log[w.jobsAt]
		w.jobsAt++
		old, _ := c.old.(*batchv1.Job)
		job, _ := c.new.(*batchv1.Job)
		cacheChange(w.jobCache, c)
		switch {
		case job != nil:
			w.engine.jobChanged(job, fromInformer)
		case old != nil:
			w.engine.jobGone(old)
		default:
			continue
		}
		return true
	}
	return false
}

func (w *world) deliver() {
	for w.deliverPods() || w.deliverJobs() {
	}
}

// sync syncs the first Job that is due; false: none is.
func (w *world) sync() bool {
	if len(w.due) == 0 {
		return false
	}
	uid := w.due[0]
	w.due = w.due[1:]
	again, err := w.engine.syncJob(context.Background(), uid)
	if err != nil {
		again = time.Second // what the queue's back-off would do
	}
	delete(w.timers, uid)
	if again > 0 {
		w.timers[uid] = w.clock.Now().Add(again)
	}
	return true
}

// fire makes due what the time has come for.
func (w *world) fire() {
	for _, uid := range sortedKeys(w.timers) {
		if !w.timers[uid].After(w.clock.Now()) {
			delete(w.timers, uid)
			w.Job(uid, 0)
		}
	}
	for _, uid := range sortedKeys(w.ttls) {
		if !w.ttls[uid].After(w.clock.Now()) {
			delete(w.ttls, uid)
			again, err := w.engine.reaper.reap(context.Background(), uid)
			if err != nil {
				again = time.Second
			}
			if again > 0 {
				w.ttls[uid] = w.clock.Now().Add(again)
			}
		}
	}
	for _, p := range w.loose {
		if err := w.engine.releaseLoose(context.Background(), p.NamespacedName, p.uid); err != nil {
			w.t.Fatal(err)
		}
	}
	w.loose = nil
}

// settle delivers all events and syncs until nothing is to be done at this time. An engine that never comes to rest fails the test.
func (w *world) settle() {
	w.t.Helper()
	for range 10_000 {
		w.deliver()
		w.fire()
		if !w.sync() && w.podsAt == len(w.api.log) && w.jobsAt == len(w.api.log) && len(w.loose) == 0 {
			return
		}
	}
	w.t.Fatal("the engine doesn't come to rest")
}

// pass lets time go by, doing what becomes due on the way.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := w.clock.Now().Add(d)
	for {
		w.settle()
		next := end
		for _, timers := range []map[types.UID]time.Time{w.timers, w.ttls} {
			for _, at := range timers {
				if at.Before(next) {
					next = at
				}
			}
		}
		if !next.Before(end) {
			w.clock.SetTime(end)
			w.settle()
			return
		}
		w.clock.SetTime(next)
	}
}

// crashes runs what may crash, and says whether it did.
func crashes(run func()) (crashed bool) {
	defer func() {
		if r := recover(); r != nil {
			if err, ok := r.(error); !ok || !errors.Is(err, errCrash) {
				panic(r)
			}
			crashed = true
		}
	}()
	run()
	return false
}

// create makes a Job and returns it as stored.
func (w *world) create(job *batchv1.Job) *batchv1.Job { return w.api.createJob(job) }

func (w *world) job(name string) *batchv1.Job {
	w.t.Helper()
	job := w.api.job("default", name)
	if job == nil {
		w.t.Fatalf("Job %s doesn't exist", name)
	}
	return job
}

// running marks a pod as scheduled, running and ready.
func (w *world) running(pod *corev1.Pod) {
	w.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = "node", corev1.PodRunning
		setReady(p, corev1.ConditionTrue, w.api.now())
	})
}

func setReady(p *corev1.Pod, status corev1.ConditionStatus, now metav1.Time) {
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: status, LastTransitionTime: now}
	p.Status.Conditions = append(slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady }), ready)
}

// end ends a pod the way a node does; one that is being deleted goes for good once nothing holds it. A failed one has exit code 1.
func (w *world) end(pod *corev1.Pod, phase corev1.PodPhase) {
	var code int32
	if phase == corev1.PodFailed {
		code = 1
	}
	w.exit(pod, phase, code)
}

// fail ends a pod with an exit code and, if one is given, a condition.
func (w *world) fail(pod *corev1.Pod, code int32, conditions ...corev1.PodConditionType) {
	w.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		for _, c := range conditions {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue})
		}
	})
	w.exit(pod, corev1.PodFailed, code)
}

func (w *world) exit(pod *corev1.Pod, phase corev1.PodPhase, code int32) {
	w.api.mu.Lock()
	w.api.stopped[pod.UID] = true
	w.api.mu.Unlock()
	w.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = "node", phase
		setReady(p, corev1.ConditionFalse, w.api.now())
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: w.api.now(), ExitCode: code},
		}}}
	})
}

// active returns the Job's pods that run or wait to run.
func (w *world) active(job *batchv1.Job) []*corev1.Pod {
	return slices.DeleteFunc(w.api.podsOf(job), func(p *corev1.Pod) bool {
		return stageOf(p.Status.Phase, p.DeletionTimestamp != nil) != stageActive
	})
}

func (w *world) endAll(job *batchv1.Job, phase corev1.PodPhase) {
	for _, pod := range w.active(job) {
		w.end(pod, phase)
	}
}

// eventLog is an event recorder that remembers.
type eventLog struct{ lines []string }

func (l *eventLog) Event(_ runtime.Object, kind, reason, message string) {
	l.lines = append(l.lines, fmt.Sprintf("%s %s %s", kind, reason, message))
}

func (l *eventLog) Eventf(obj runtime.Object, kind, reason, format string, args ...any) {
	l.Event(obj, kind, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) AnnotatedEventf(obj runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	l.Eventf(obj, kind, reason, format, args...)
}

// reasons returns the reasons of all events, in order.
func (l *eventLog) reasons() []string {
	var out []string
	for _, line := range l.lines {
		out = append(out, strings.Fields(line)[1])
	}
	return out
}
