package jobs

import (
	"errors"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The tests in traps_*_test.go are named after the issues of kubernetes/kubernetes that tell how a Job controller went wrong.

// A cache that hasn't shown the pod yet must not make a second one.
func TestKK137210_StaleCacheCreatesTwice(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(3).obj())
	w.deliverJobs()
	for w.sync() {
	}
	// No pod event arrives, but the Job changes again and again.
	for range 5 {
		w.api.editJob("default", "job", func(j *batchv1.Job) { metav1.SetMetaDataAnnotation(&j.ObjectMeta, "x", j.ResourceVersion) })
		for w.deliverJobs() {
		}
		for w.sync() {
		}
		w.clock.SetTime(w.clock.Now().Add(time.Second))
	}
	if got := len(w.api.podsOf(job)); got != 3 {
		t.Errorf("%d pods", got)
	}
}

// The informer may show what the engine has written before the API has answered. That is no other's work, on account of which all pods would have to
// be read again.
func TestEventsBeforeTheAnswer(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newWorld(t)
		job := w.create(makeJob("job").completions(20).parallelism(2).obj())
		jobs := func() {
			for w.deliverJobs() {
			}
		}
		w.api.answering = func(string, string) { jobs() }
		w.api.hook = func(verb, resource, _ string) fault {
			if lost && verb == "updateStatus" && w.api.calls["updateStatus jobs"]%3 == 2 {
				return fault{err: apierrors.NewTimeoutError("the answer is lost", 0), applied: true}
			}
			return fault{}
		}
		for range 20 {
			for w.deliverPods() { // which then is slow
			}
			for jobs(); w.sync(); jobs() {
			}
			w.endAll(job, corev1.PodSucceeded)
			w.clock.SetTime(w.clock.Now().Add(2 * time.Second))
			w.fire()
		}
		if got := w.job("job"); got.Status.Succeeded != 20 || !isFinished(got) {
			t.Errorf("lost answers: %t: %+v", lost, got.Status)
		}
		if n := w.api.calls["list pods"]; n > 0 {
			t.Errorf("lost answers: %t: the pods were read %d times", lost, n)
		}
	}
}

// Nor do pods come back, or does their end look like another's work, when the informer tells of it before the API has answered the request that
// brought it about.
func TestEndsBeforeTheAnswer(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(20).parallelism(2).replaceFailedOnly().obj())
	w.api.answering = func(string, string) {
		for w.deliverPods() { // before the informer of Jobs
		}
	}
	for range 10 {
		for w.deliverJobs() {
		}
		for w.deliverPods(); w.sync(); {
		}
		for _, pod := range w.active(job) {
			w.end(pod, corev1.PodSucceeded)
			w.api.mu.Lock()
			if err := w.api.deletePod("default", pod.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			w.api.mu.Unlock()
		}
	}
	w.settle()
	if got := w.job("job"); got.Status.Succeeded != 20 || !isFinished(got) {
		t.Errorf("%+v", got.Status)
	}
	if n := w.api.calls["get jobs"] + w.api.calls["list pods"]; n > 0 {
		t.Errorf("%d reads around the informers", n)
	}
	if s := w.engine.registry.get(job.UID); s != nil && len(s.pods) > 0 {
		t.Errorf("%d pods are still there", len(s.pods))
	}
}

// Nor must one that shows neither pod nor status after a restart.
func TestKK137210_StaleListAfterRestart(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(3).obj())
	w.settle()
	w.boot(len(w.api.log)-1, len(w.api.log)) // the Job as it was created, and no pods
	w.sync()
	w.settle()
	if got := len(w.api.podsOf(job)); got != 3 {
		t.Errorf("%d pods", got)
	}
}

// Nor must lists from before the whole Job ran, even if the name of its pod has become free again.
func TestKK137210_StaleListOfAFinishedJob(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").limit(0).obj())
	w.settle()
	pod := w.active(job)[0]
	w.end(pod, corev1.PodFailed)
	w.settle()
	w.boot(len(w.api.log)-1, len(w.api.log)-1) // the Job as it was created
	w.api.mu.Lock()
	_ = w.api.deletePod("default", pod.Name, metav1.DeleteOptions{})
	w.api.mu.Unlock()
	w.sync()
	w.settle()
	if got := w.api.calls["create pods"]; got != 1 {
		t.Errorf("%d pods were created", got)
	}
}

// A second instance, which leads no more but doesn't know it yet, must not add pods either.
func TestKK137210_PausedLeader(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(9).parallelism(2).obj())
	w.settle()
	w.clock.SetTime(w.clock.Now().Add(time.Minute))
	w.endAll(job, corev1.PodFailed)
	w.deliver()
	paused := *w
	paused.due = append(paused.due[:0:0], paused.due...)
	w.boot(0, 0) // the new leader
	w.settle()
	w.pass(time.Minute)
	paused.sync()
	paused.sync()
	if got := len(w.active(job)); got != 2 {
		t.Errorf("%d active pods", got)
	}
}

// The status with the success and the pod without finalizer may arrive in either order, late, or never: there is one pod.
func TestKK130103_SecondPodAfterFinalizerRemoval(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").limit(0).obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	for w.deliverPods() {
	}
	for w.sync() { // all that follows happens without a single event
	}
	if !isFinished(w.job("job")) {
		t.Error("not finished")
	}
	for w.deliverPods() { // the pod's events come, the Job's don't
	}
	w.Job(job.UID, 0)
	for w.sync() {
	}
	if got := w.api.calls["create pods"]; got != 1 {
		t.Errorf("%d pods were created", got)
	}
}

// An API that answers every creation with an error, after having done it, gets one pod.
func TestKK27997_PodsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	lost := 0
	w.api.hook = func(verb, resource, _ string) fault {
		if verb == "create" && lost < 30 {
			lost++
			return fault{err: errors.New("connection reset"), applied: true}
		}
		return fault{}
	}
	for w.deliverJobs() {
	}
	for range 3600 { // an hour without a pod event
		w.fire()
		for w.sync() {
		}
		w.clock.SetTime(w.clock.Now().Add(time.Second))
	}
	if got := len(w.api.podsOf(job)); got != 1 {
		t.Errorf("%d pods", got)
	}
}

// A creation that the API refuses is retried with growing delays, one pod at a time, and says why once for each try.
func TestKK27997_NoStormWhenCreationFails(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").completions(100).parallelism(100).obj())
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "create" {
			return fault{err: apierrors.NewForbidden(podResource, "", errors.New("exceeded quota: pods"))}
		}
		return fault{}
	}
	w.pass(10 * time.Minute)
	if got := w.api.calls["create pods"]; got > 20 {
		t.Errorf("%d tries in ten minutes", got)
	}
	w.api.hook = nil
	w.pass(2 * time.Minute)
	if got := w.job("job").Status.Active; got != 100 {
		t.Errorf("%d active once the quota is gone", got)
	}
	if want := `Warning FailedCreate Error creating: pods is forbidden: exceeded quota: pods`; w.events.lines[0] != want {
		t.Errorf("event %q", w.events.lines[0])
	}
}

// Failures are bounded by the limit and what runs at a time, whatever the interleaving.
func TestKK70251_KK109397_KK60735_MoreFailuresThanTheLimit(t *testing.T) {
	for _, tc := range []struct{ limit, parallelism int32 }{{10, 10}, {0, 1}, {3, 2}, {0, 25}} {
		w := newWorld(t)
		w.lim = limits{} // no delay that would hide a pod too many
		w.boot(0, 0)
		job := w.create(makeJob("job").completions(100).parallelism(tc.parallelism).limit(tc.limit).obj())
		for range 200 {
			w.settle()
			if active := w.active(job); len(active) > 0 {
				w.end(active[0], corev1.PodFailed) // one by one: the worst case
			}
			w.pass(10 * time.Minute)
			for _, p := range w.api.podsOf(job) {
				if p.DeletionTimestamp != nil && alive(p) {
					w.end(p, corev1.PodFailed)
				}
			}
			if isFinished(w.job("job")) {
				break
			}
		}
		status := w.job("job").Status
		if !isTrue(status.Conditions, batchv1.JobFailed) || findCondition(status.Conditions, batchv1.JobFailed).Reason != batchv1.JobReasonBackoffLimitExceeded {
			t.Errorf("limit %d: %+v", tc.limit, status.Conditions)
		}
		if got := w.api.calls["create pods"]; got > int(tc.limit+tc.parallelism) {
			t.Errorf("limit %d, parallelism %d: %d pods", tc.limit, tc.parallelism, got)
		}
		if status.Failed != int32(w.api.calls["create pods"]) {
			t.Errorf("limit %d, parallelism %d: %d pods, %d failed", tc.limit, tc.parallelism, w.api.calls["create pods"], status.Failed)
		}
	}
}

// Old versions of a pod that arrive after it was counted don't count it again.
func TestKK105200_CountedTwice(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(2).parallelism(1).obj())
	w.settle()
	pod := w.active(job)[0]
	w.end(pod, corev1.PodSucceeded)
	w.deliverPods()
	old := w.podCache[pod.UID]
	for w.sync() {
	}
	if got := w.job("job").Status.Succeeded; got != 1 {
		t.Fatalf("succeeded %d", got)
	}
	for range 3 { // the informer is behind: it still shows the pod with its finalizer
		w.engine.podChanged(old, old, fromInformer)
		w.Job(job.UID, 0)
		for w.sync() {
		}
	}
	w.settle()
	if got := w.job("job").Status; got.Succeeded != 1 || got.Active != 1 {
		t.Errorf("succeeded %d, active %d", got.Succeeded, got.Active)
	}
}

// More pods at once than the status can name: all are counted, and the status never names more than 500.
func TestKK104666_MoreThan500AtOnce(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(1200).parallelism(1200).obj())
	w.settle()
	if got := w.job("job").Status.Active; got != 1200 {
		t.Fatalf("%d active", got)
	}
	most := 0
	w.api.wrote = func(_, obj any) {
		if j, ok := obj.(*batchv1.Job); ok {
			s, f := uncounted(&j.Status)
			most = max(most, len(s)+len(f))
		}
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	status := w.job("job").Status
	if status.Succeeded != 1200 || !isFinished(w.job("job")) || most != 500 {
		t.Errorf("succeeded %d, finished %v, at most %d named", status.Succeeded, isFinished(w.job("job")), most)
	}
}

// A pod that flips from one end to the other after the status has named it stays where it was named.
func TestKK125410_KK111646_PhaseFlip(t *testing.T) {
	for _, phases := range [][2]corev1.PodPhase{{corev1.PodSucceeded, corev1.PodFailed}, {corev1.PodFailed, corev1.PodSucceeded}} {
		w := newWorld(t)
		job := w.create(makeJob("job").completions(2).parallelism(1).obj())
		w.settle()
		pod := w.active(job)[0]
		w.end(pod, phases[0])
		w.api.hook = func(verb, _, _ string) fault { return fault{crash: verb == "patch"} } // named, not released
		w.deliver()
		if !crashes(func() { w.sync() }) {
			t.Fatal("no crash")
		}
		w.api.hook = nil
		w.end(pod, phases[1])
		w.boot(0, 0)
		w.pass(time.Minute)
		status := w.job("job").Status
		want := [2]int32{1, 0}
		if phases[0] == corev1.PodFailed {
			want = [2]int32{0, 1}
		}
		if got := [2]int32{status.Succeeded, status.Failed}; got != want {
			t.Errorf("%v: counted %v", phases, got)
		}
	}
}

// With restartPolicy OnFailure a Job that gives up has a failed pod.
func TestKK89630_OnFailureCountsNothing(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").limit(2).onFailure().obj())
	w.settle()
	pod := w.active(job)[0]
	w.running(pod)
	for n := range int32(3) {
		w.api.setPod("default", pod.Name, func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} })
		w.settle()
		if decided := isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget); decided != (n == 2) {
			t.Fatalf("after %d restarts: decided %v", n, decided)
		}
	}
	w.end(pod, corev1.PodFailed)
	w.settle()
	if status := w.job("job").Status; status.Failed != 1 || !isTrue(status.Conditions, batchv1.JobFailed) {
		t.Errorf("status %+v", status)
	}
}

// A status is never written over one that was changed meanwhile.
func TestKK105199_OverwrittenStatus(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(5).parallelism(1).obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.deliver()
	w.api.editJob("default", "job", func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](0) })
	w.sync() // decides on the old Job
	w.settle()
	if status := w.job("job").Status; status.Succeeded != 1 {
		t.Errorf("status %+v", status)
	}
}
