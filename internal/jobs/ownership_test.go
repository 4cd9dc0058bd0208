package jobs

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// A pod that the Job's selector selects and nothing controls is adopted, before another one is created; it counts.
func TestAdoption(t *testing.T) {
	mine := map[string]string{"app": "mine"}
	w := newWorld(t)
	w.api.mu.Lock()
	stray, err := w.api.createPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stray", Namespace: "default", Labels: mine}})
	w.api.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	w.deliver()
	job := w.create(makeJob("job").completions(2).parallelism(1).selecting(mine).obj())
	w.settle()
	pods := w.active(job)
	if len(pods) != 1 || pods[0].UID != stray.UID || !isTracked(pods[0]) {
		t.Fatalf("the Job has %d pods", len(pods))
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	if status := w.job("job").Status; status.Succeeded != 1 || status.Active != 1 {
		t.Errorf("status %+v", status)
	}
}

// Nor does a Job adopt that was deleted while the cache didn't know.
func TestNoAdoptionByADeletedJob(t *testing.T) {
	mine := map[string]string{"app": "mine"}
	w := newWorld(t)
	w.create(makeJob("job").parallelism(0).selecting(mine).obj())
	w.settle()
	w.api.editJob("default", "job", func(j *batchv1.Job) {
		j.DeletionTimestamp, j.Finalizers = ptr.To(w.api.now()), []string{metav1.FinalizerDeleteDependents}
	})
	w.api.mu.Lock()
	_, err := w.api.createPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stray", Namespace: "default", Labels: mine}})
	w.api.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for w.deliverPods() {
	}
	for w.sync() {
	}
	w.settle()
	if p := w.api.podsOf(nil)[0]; len(p.OwnerReferences) > 0 {
		t.Error("adopted by a Job that is being deleted")
	}
}

// A pod that has lost the Job's labels is let go, and replaced.
func TestRelease(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	w.settle()
	lost := w.active(job)[0]
	w.api.setPod("default", lost.Name, func(p *corev1.Pod) { p.Labels = map[string]string{"debug": "me"} })
	w.settle()
	pods := w.active(job)
	if len(pods) != 1 || pods[0].UID == lost.UID {
		t.Errorf("%d pods", len(pods))
	}
	for _, p := range w.api.podsOf(nil) {
		if p.UID == lost.UID && (isTracked(p) || len(p.OwnerReferences) > 0) {
			t.Error("the lost pod is still held")
		}
	}
}

// A Job of another manager is left alone, pods and finalizers included; one that names this engine isn't.
func TestManagedBy(t *testing.T) {
	for _, tc := range []struct {
		manager, by string
		runs        bool
	}{
		{batchv1.JobControllerName, "", true},
		{batchv1.JobControllerName, batchv1.JobControllerName, true},
		{batchv1.JobControllerName, "example.com/other", false},
		{"errand.dev/job-controller", "", false},
		{"errand.dev/job-controller", "errand.dev/job-controller", true},
	} {
		w := newWorld(t)
		w.manager = tc.manager
		w.boot(0, 0)
		b := makeJob("job")
		if tc.by != "" {
			b.managedBy(tc.by)
		}
		job := w.create(b.obj())
		w.settle()
		if got := len(w.api.podsOf(job)) == 1; got != tc.runs {
			t.Errorf("manager %s, managedBy %q: runs %v", tc.manager, tc.by, got)
			continue
		}
		if tc.runs {
			continue
		}
		pod := makePod("theirs").failed().deleting().obj()
		pod.UID, pod.OwnerReferences[0].UID, pod.ResourceVersion = "pod-000099", job.UID, ""
		w.api.mu.Lock()
		w.api.stamp(&pod.ObjectMeta)
		w.api.pods[key("default", "theirs")] = pod
		w.api.record(nil, pod)
		w.api.mu.Unlock()
		w.settle()
		if len(w.api.calls) > 0 {
			t.Errorf("touched another's Job: %v", w.api.calls)
		}
	}
}

// A pod that a user deletes is replaced.
func TestDeletedPodIsReplaced(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	w.settle()
	w.api.mu.Lock()
	_ = w.api.deletePod("default", w.active2(job)[0].Name, metav1.DeleteOptions{})
	w.api.mu.Unlock()
	if got := w.nextPodIn(job); got != 10*time.Second {
		t.Errorf("replaced after %v", got)
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	if status := w.job("job").Status; status.Failed != 1 || status.Succeeded != 1 || !isFinished(w.job("job")) {
		t.Errorf("status %+v", status)
	}
}

// active2 is active for a caller that holds the API's lock.
func (w *world) active2(job *batchv1.Job) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, p := range w.api.pods {
		if owner, _ := jobOwner(p); owner != nil && owner.UID == job.UID {
			pods = append(pods, p)
		}
	}
	return pods
}

// A pod that came and went while the informer's watch was broken is missed in the end.
func TestPodThatTheInformerNeverSaw(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	for w.deliverJobs() {
	}
	for w.sync() {
	}
	pod := w.active(job)[0]
	w.api.setPod("default", pod.Name, func(p *corev1.Pod) { p.Finalizers = nil })
	w.api.mu.Lock()
	_ = w.api.deletePod("default", pod.Name, metav1.DeleteOptions{})
	w.api.mu.Unlock()
	w.podsAt, w.podCache = len(w.api.log), map[types.UID]*corev1.Pod{} // a new list, without it
	w.pass(confirmAfter)
	if got := len(w.active(job)); got != 1 {
		t.Errorf("%d active pods", got)
	}
}
