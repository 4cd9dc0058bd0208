package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// ofIndex returns the active pod of an index, of which there must be just one.
func (w *world) ofIndex(job *batchv1.Job, index int32) *corev1.Pod {
	w.t.Helper()
	pods := slices.DeleteFunc(w.active(job), func(p *corev1.Pod) bool { return completionIndex(job.Name, p) != index })
	if len(pods) != 1 {
		w.t.Fatalf("index %d has %d active pods: %s", index, len(pods), w.indexesOf(job))
	}
	return pods[0]
}

// indexesOf writes the indexes of the Job's active pods, in order.
func (w *world) indexesOf(job *batchv1.Job) string {
	var list []int32
	for _, p := range w.active(job) {
		list = append(list, completionIndex(job.Name, p))
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}

// createdFor is how many pods were ever created for the index.
func (w *world) createdFor(job *batchv1.Job, index int32) (n int) {
	for _, c := range w.api.log {
		pod, _ := c.new.(*corev1.Pod)
		if c.old == nil && pod != nil && pod.Labels[batchv1.JobCompletionIndexAnnotation] == strconv.Itoa(int(index)) {
			n++
		}
	}
	return n
}

// resize changes the number of an elastic Job's indexes (KEP-3715), before the engine hears of it.
func (w *world) resize(n int32) {
	w.api.editJob("default", "job", func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, &n })
}

// untracked fails the test if a pod keeps the tracking finalizer.
func (w *world) untracked() {
	w.t.Helper()
	for _, p := range w.api.podsOf(nil) {
		if isTracked(p) {
			w.t.Errorf("%s keeps its finalizer", p.Name)
		}
	}
}

// deletePod deletes a pod as a user does; one that runs goes on until its node ends it.
func (w *world) deletePod(pod *corev1.Pod) {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	_ = w.api.deletePod(pod.Namespace, pod.Name, metav1.DeleteOptions{})
}

// endDeleted lets the nodes end all pods that are being deleted: they fail, as containers do that are killed.
func (w *world) endDeleted() {
	w.t.Helper()
	w.settle()
	for _, p := range w.api.podsOf(nil) {
		if p.DeletionTimestamp != nil && alive(p) {
			w.end(p, corev1.PodFailed)
		}
	}
	w.settle()
}

// copyOf makes another pod of the same index, as a controller with a stale cache has made them.
func (w *world) copyOf(pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	second := pod.DeepCopy()
	second.Name, second.ResourceVersion = pod.Name+"x", ""
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	second, err := w.api.createPod(second)
	if err != nil {
		w.t.Fatal(err)
	}
	return second
}

// Two pods of an index that both succeed are one success.
func TestKK99865_DuplicateIndexCounted(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(1).obj())
	w.settle()
	first := w.ofIndex(job, 0)
	second := w.copyOf(first)
	w.end(first, corev1.PodSucceeded)
	w.end(second, corev1.PodSucceeded)
	w.settle()
	status := w.job("job").Status
	if status.CompletedIndexes != "0" || status.Succeeded != 1 || w.indexesOf(job) != "[1]" {
		t.Errorf("indexes %q, succeeded %d, active %s", status.CompletedIndexes, status.Succeeded, w.indexesOf(job))
	}
	for range 2 {
		w.endAll(job, corev1.PodSucceeded)
		w.settle()
	}
	if status := w.job("job").Status; status.CompletedIndexes != "0-2" || status.Succeeded != 3 || !isFinished(w.job("job")) {
		t.Errorf("status %+v", status)
	}
	w.untracked()
}

// Of two pods that run for an index, one has to go: the one whose loss costs less.
func TestKK99865_DuplicateIndexRuns(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(3).obj())
	w.settle()
	first := w.ofIndex(job, 1)
	w.running(first)
	w.copyOf(first)
	w.settle()
	if got := w.ofIndex(job, 1); got.UID != first.UID || w.indexesOf(job) != "[0 1 2]" {
		t.Errorf("active %s, of index 1 %s", w.indexesOf(job), got.Name)
	}
	if status := w.job("job").Status; status.Failed != 0 || status.Active != 3 {
		t.Errorf("status %+v", status)
	}
}

// An index that has succeeded doesn't run again: not when its pod is deleted, nor after a restart whose informers show the past, each another one.
func TestKK108887_SucceededIndexRerun(t *testing.T) {
	for behind := range 8 * 8 * 2 {
		jobs, pods, deleted := behind%8, behind/8%8, behind >= 8*8
		w := newWorld(t)
		job := w.create(makeJob("job").indexed(3).parallelism(3).obj())
		w.settle()
		pod := w.ofIndex(job, 0)
		w.end(pod, corev1.PodSucceeded)
		w.settle()
		if deleted {
			w.deletePod(pod)
		}
		w.boot(jobs, pods)
		for w.sync() { // before any event arrives
		}
		w.pass(time.Minute)
		if got := w.createdFor(job, 0); got != 1 || w.indexesOf(job) != "[1 2]" {
			t.Errorf("deleted %v, behind by %d and %d: %d pods for index 0, active %s", deleted, jobs, pods, got, w.indexesOf(job))
		}
	}
}

// Nor does it after a crash at any step of its being counted.
func TestKK108887_SucceededIndexRerunAfterACrash(t *testing.T) {
	for step := range 12 {
		for _, applied := range []bool{false, true} {
			w := newWorld(t)
			job := w.create(makeJob("job").indexed(2).parallelism(1).obj())
			w.settle()
			w.end(w.ofIndex(job, 0), corev1.PodSucceeded)
			w.crashAt(step, applied)
			w.endAll(job, corev1.PodSucceeded)
			w.settle()
			status := w.job("job").Status
			if w.createdFor(job, 0) != 1 || w.createdFor(job, 1) != 1 || status.CompletedIndexes != "0,1" || !isFinished(w.job("job")) {
				t.Errorf("crash at %d, applied %v: status %+v", step, applied, status)
			}
			w.untracked()
		}
	}
}

// crashAt does what there is to do, but crashes at the n-th request to the API, after or before it takes effect, and starts anew.
func (w *world) crashAt(n int, applied bool) (crashed bool) {
	w.t.Helper()
	requests := 0
	w.api.hook = func(string, string, string) fault {
		requests++
		return fault{crash: requests == n+1, applied: applied}
	}
	crashed = crashes(func() { w.settle() })
	w.api.hook = nil
	if crashed {
		w.boot(0, 0)
	}
	w.settle()
	return crashed
}

// Pods of indexes that the Job doesn't have never get into completedIndexes: the API would refuse the status, for good.
func TestKK115349_CompletedIndexesOutOfRange(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(4).obj())
	w.settle()
	w.end(w.ofIndex(job, 1), corev1.PodSucceeded)
	w.settle()
	w.resize(2)
	for _, p := range w.active(job) { // they all succeed before the engine hears of the change
		w.end(p, corev1.PodSucceeded)
	}
	w.settle()
	status := w.job("job").Status
	if status.CompletedIndexes != "0,1" || status.Succeeded != 2 || !isTrue(status.Conditions, batchv1.JobComplete) {
		t.Errorf("status %+v", status)
	}
	w.untracked()
}

// A user who edits the annotation of index 0's pod to say 1 doesn't make 0 run again and 1 never: the host name is what counts.
func TestKK140839_EditedIndexAnnotation(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(1).obj())
	w.settle()
	pod := w.ofIndex(job, 0)
	w.api.setPod("default", pod.Name, func(p *corev1.Pod) { p.Annotations[batchv1.JobCompletionIndexAnnotation] = "1" })
	w.settle()
	w.end(pod, corev1.PodSucceeded)
	w.settle()
	if got := w.job("job").Status.CompletedIndexes; got != "0" || w.indexesOf(job) != "[1]" {
		t.Errorf("indexes %q, active %s", got, w.indexesOf(job))
	}
	for range 2 {
		w.endAll(job, corev1.PodSucceeded)
		w.settle()
	}
	for index := range int32(3) {
		if got := w.createdFor(job, index); got != 1 {
			t.Errorf("%d pods for index %d", got, index)
		}
	}
}

// The lowest missing index runs first, and a failed one is taken up again after the Job's back-off.
func TestIndexedOrder(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(5).parallelism(2).obj())
	w.settle()
	w.end(w.ofIndex(job, 1), corev1.PodSucceeded)
	w.settle()
	if got := w.indexesOf(job); got != "[0 2]" {
		t.Fatalf("active %s", got)
	}
	w.pass(time.Second) // a success takes the delay away of what failed before it
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	w.pass(9 * time.Second)
	if got := w.indexesOf(job); got != "[2]" {
		t.Fatalf("active during the back-off: %s", got)
	}
	w.pass(time.Second)
	if got := w.indexesOf(job); got != "[0 2]" {
		t.Errorf("active %s", got)
	}
	if got := w.job("job").Status; got.Failed != 1 || got.CompletedIndexes != "1" || got.FailedIndexes != nil {
		t.Errorf("status %+v", got)
	}
}

// A pod that may have been created, for want of an answer, takes up its place until it is known, also if a lower index needs a pod meanwhile.
func TestIndexedAnswerLost(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(1).limitPerIndex(5).obj())
	w.settle()
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "create" {
			return fault{err: errors.New("connection reset"), applied: true}
		}
		return fault{}
	}
	w.deliver()
	for w.sync() { // index 0 waits, and 1 is begun
	}
	w.api.hook = nil
	w.clock.SetTime(w.clock.Now().Add(time.Minute)) // index 0 waits no more, and the informer is late
	w.fire()
	for w.sync() {
	}
	w.settle()
	if got := w.createdFor(job, 0); got != 1 || w.indexesOf(job) != "[1]" {
		t.Errorf("%d pods for index 0, active %s", got, w.indexesOf(job))
	}
}

// A suspended Job's indexes rest, none fails or is counted for it, and those that have succeeded stay.
func TestIndexedSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(2).limitPerIndex(0).suspended().obj())
	w.settle()
	if got := w.api.calls["create pods"]; got != 0 {
		t.Fatalf("%d pods of a suspended Job", got)
	}
	w.suspend(false)
	w.end(w.ofIndex(job, 1), corev1.PodSucceeded)
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	w.settle()
	w.suspend(true)
	w.endDeleted()
	status := w.job("job").Status
	if status.Failed != 0 || *status.FailedIndexes != "" || status.CompletedIndexes != "1" || status.StartTime != nil || len(w.active(job)) != 0 {
		t.Fatalf("status %+v", status)
	}
	w.suspend(false)
	if got := w.indexesOf(job); got != "[0 2]" {
		t.Errorf("active %s", got)
	}
	for range 3 {
		w.endAll(job, corev1.PodSucceeded)
		w.settle()
	}
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobComplete) {
		t.Errorf("status %+v", w.job("job").Status)
	}
}

// A Job made smaller loses the pods of the highest indexes, uncounted, and what has succeeded of them; made larger again, they run.
func TestElasticDownAndUp(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(5).parallelism(5).obj())
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	w.end(w.ofIndex(job, 1), corev1.PodSucceeded)
	w.end(w.ofIndex(job, 4), corev1.PodSucceeded)
	w.settle()
	w.resize(3)
	w.settle()
	status := w.job("job").Status
	if w.indexesOf(job) != "[0 2]" || status.CompletedIndexes != "1" || status.Succeeded != 1 || status.Failed != 0 {
		t.Fatalf("smaller: active %s, status %+v", w.indexesOf(job), status)
	}
	w.resize(5)
	w.settle()
	status = w.job("job").Status
	if w.indexesOf(job) != "[0 2 3 4]" || status.CompletedIndexes != "1" || status.Failed != 0 {
		t.Fatalf("larger: active %s, status %+v", w.indexesOf(job), status)
	}
	w.endAll(job, corev1.PodSucceeded)
	w.endDeleted()
	if status := w.job("job").Status; status.CompletedIndexes != "0-4" || status.Succeeded != 5 || !isTrue(status.Conditions, batchv1.JobComplete) {
		t.Errorf("status %+v", status)
	}
}

// A pod whose index has gone goes too, though another index that waits after a failure would leave it room.
func TestElasticDownWhileAnIndexWaits(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(4).limitPerIndex(5).obj())
	w.runAll(job)
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	w.resize(3)
	w.settle()
	if got := w.indexesOf(job); got != "[1 2]" {
		t.Errorf("active %s", got)
	}
	w.pass(10 * time.Second)
	if got := w.indexesOf(job); got != "[0 1 2]" {
		t.Errorf("active %s after the wait", got)
	}
}

// A Job made so small that all that is left has succeeded is complete.
func TestElasticDownToWhatIsDone(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(4).obj())
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	for index := range int32(2) {
		w.end(w.ofIndex(job, index), corev1.PodSucceeded)
	}
	w.settle()
	w.resize(2)
	w.settle()
	w.endDeleted()
	if status := w.job("job").Status; status.Succeeded != 2 || status.Failed != 0 || !isTrue(status.Conditions, batchv1.JobComplete) {
		t.Errorf("status %+v", status)
	}
	w.untracked()
}

// The API lets the counter of successes fall only while completions are parallelism. A Job made smaller whose parallelism changes before the engine
// sees it keeps its counter, and isn't stuck with a status that is refused for good.
func TestElasticDownThenOtherParallelism(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(4).obj())
	w.settle()
	for index := range int32(3) {
		w.end(w.ofIndex(job, index+1), corev1.PodSucceeded)
	}
	w.settle()
	w.resize(2)
	w.api.editJob("default", "job", func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](1) })
	w.settle() // a refused status fails the test
	if status := w.job("job").Status; status.CompletedIndexes != "1" || w.indexesOf(job) != "[0]" {
		t.Fatalf("active %s, status %+v", w.indexesOf(job), status)
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	if status := w.job("job").Status; status.CompletedIndexes != "0,1" || !isTrue(status.Conditions, batchv1.JobComplete) {
		t.Errorf("status %+v", status)
	}
}

// A claim that the API refused is tried again by itself, when nothing else happens.
func TestClaimTriedAgain(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(2).parallelism(2).obj())
	w.settle()
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "patch" {
			return fault{err: apierrors.NewTooManyRequests("busy", 1)}
		}
		return fault{}
	}
	stray := w.ofIndex(job, 1)
	w.api.setPod("default", stray.Name, func(p *corev1.Pod) { p.Labels = nil })
	w.settle()
	w.api.hook = nil
	w.pass(2 * time.Minute)
	if got := w.api.pods[key("default", stray.Name)]; len(got.OwnerReferences) > 0 || isTracked(got) {
		t.Errorf("the Job still has %s", got.Name)
	}
	if got := w.indexesOf(job); got != "[0 1]" {
		t.Errorf("active %s", got)
	}
}

// With podReplacementPolicy Failed an index has no second pod before its terminating one has ended, however much room there is.
func TestKK115844_IndexReplacedTooEarly(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(2).replaceFailedOnly().obj())
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	pod := w.ofIndex(job, 0)
	w.deletePod(pod)
	w.settle()
	w.api.editJob("default", "job", func(j *batchv1.Job) { *j.Spec.Parallelism = 3 })
	w.pass(time.Hour)
	status := w.job("job").Status
	if w.indexesOf(job) != "[1 2]" || *status.Terminating != 1 || status.Failed != 0 {
		t.Fatalf("active %s, status %+v", w.indexesOf(job), status)
	}
	w.end(pod, corev1.PodFailed)
	w.pass(10 * time.Second)
	if status := w.job("job").Status; w.indexesOf(job) != "[0 1 2]" || status.Failed != 1 {
		t.Errorf("active %s, status %+v", w.indexesOf(job), status)
	}
}

// After a restart the next pod of an index has a name that none has had, whichever informer came first: no creation is in vain.
func TestAttemptsAfterARestart(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(3).limitPerIndex(5).obj())
	w.settle()
	w.endAll(job, corev1.PodFailed)
	w.settle()
	w.boot(0, 0)
	w.pass(time.Minute)
	if got := w.api.calls["create pods"]; got != 6 || w.indexesOf(job) != "[0 1 2]" {
		t.Errorf("%d creations, active %s", got, w.indexesOf(job))
	}
}

// A pod that was let go and deleted leaves its name to another. If the answer to that creation is lost, the dead pod isn't taken for it.
func TestAnswerLostForANameUsedBefore(t *testing.T) {
	for name, b := range map[string]*jobBuilder{"indexed": makeJob("job").indexed(1), "not indexed": makeJob("job")} {
		w := newWorld(t)
		job := w.create(b.obj())
		w.settle()
		pod := w.active(job)[0]
		w.api.setPod("default", pod.Name, func(p *corev1.Pod) { p.Labels = nil })
		w.boot(0, 0)
		w.api.hook = func(verb, _, _ string) fault {
			if verb == "create" && w.api.calls["create pods"] == 1 {
				w.deletePod(pod)
				return fault{err: errors.New("connection reset"), applied: true}
			}
			return fault{}
		}
		w.sync() // lets it go
		w.sync()
		w.clock.SetTime(w.clock.Now().Add(time.Minute)) // the informer is late
		w.fire()
		for w.sync() {
		}
		if got := len(w.active(job)); got != 1 {
			t.Errorf("%s: %d active", name, got)
		}
		if got := w.api.calls["create pods"]; got > 3 {
			t.Errorf("%s: %d creations", name, got)
		}
	}
}

// The API refuses a finished Job without a start time, unless it is suspended with nothing to do. One that is so only while its end is decided, but not
// any more once that is final, gets one, also if it is being deleted meanwhile.
func TestStartTimeOfAJobChangedAtItsEnd(t *testing.T) {
	for name, edit := range map[string]func(*batchv1.Job){
		"resumed":  func(j *batchv1.Job) { *j.Spec.Suspend = false },
		"enlarged": func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = ptr.To[int32](2), ptr.To[int32](2) },
		"resumed and deleted": func(j *batchv1.Job) {
			*j.Spec.Suspend = false
			j.DeletionTimestamp, j.Finalizers = ptr.To(metav1.NewTime(epoch)), []string{metav1.FinalizerDeleteDependents}
		},
	} {
		w := newWorld(t)
		job := w.create(makeJob("job").indexed(2).parallelism(2).obj())
		w.runAll(job)
		w.suspend(true)
		w.resize(0)
		w.settle()
		if status := w.job("job").Status; !isTrue(status.Conditions, batchv1.JobSuccessCriteriaMet) || status.StartTime != nil {
			t.Fatalf("%s: status %+v", name, status)
		}
		w.api.editJob("default", "job", edit)
		w.endDeleted() // a refused status fails the test
		if status := w.job("job").Status; !isTrue(status.Conditions, batchv1.JobComplete) {
			t.Errorf("%s: status %+v", name, status)
		}
	}
}
