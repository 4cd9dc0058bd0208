//go:build cluster

package cluster_test

import (
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// replacement: with podReplacementPolicy Failed, a pod that is being deleted is replaced only once it has ended.
func replacement(w *world) {
	p := w.run("replacement", spec{PodReplacementPolicy: ptr.To(batchv1.Failed)}, func(_ *corev1.Pod, n int) *cluster.End {
		if n == 1 {
			return nil
		}
		return &cluster.End{}
	})
	w.until("replacement", "active", func(j *batchv1.Job) bool { return j.Status.Active == 1 })
	first := w.pods("replacement")[0].Name
	// On a node, a pod ends when that says so, not when it is deleted.
	pods := w.client.CoreV1().Pods(w.namespace)
	to := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: first}, Target: corev1.ObjectReference{Kind: "Node", Name: "none"}}
	must(w.t, pods.Bind(w.t.Context(), to, metav1.CreateOptions{}))
	must(w.t, pods.Delete(w.t.Context(), first, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](600)}))
	w.until("replacement", "terminating", func(j *batchv1.Job) bool { return ptr.Deref(j.Status.Terminating, 0) == 1 && j.Status.Active == 0 })
	if p.Seen() != 1 {
		w.t.Errorf("there are %d pods while the first is terminating, want it alone", p.Seen())
	}
	must(w.t, cluster.EndPod(w.t.Context(), w.client, w.namespace, first, cluster.End{Code: 143}))
	w.ends("replacement", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 1, failed: 1})
	must(w.t, pods.Delete(w.t.Context(), first, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
}

// cron: upstream's CronJob controller makes Jobs, and whoever they name runs them.
func cron(w *world) {
	crons := w.client.BatchV1().CronJobs(w.namespace)
	c, err := crons.Create(w.t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "cron"}, Spec: batchv1.CronJobSpec{
		Schedule: "* * * * *", Suspend: ptr.To(true), JobTemplate: batchv1.JobTemplateSpec{Spec: w.complete(spec{})},
	}}, metav1.CreateOptions{})
	must(w.t, err)
	// One that has missed a time makes up for it at once.
	c.Status.LastScheduleTime = ptr.To(metav1.NewTime(time.Now().Add(-90 * time.Second)))
	_, err = crons.UpdateStatus(w.t.Context(), c, metav1.UpdateOptions{})
	must(w.t, err)
	_, err = crons.Patch(w.t.Context(), "cron", types.MergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{})
	must(w.t, err)
	job := w.untilScheduled("cron")
	w.play(job, succeed)
	w.ends(job, result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 1})
}

// untilScheduled returns the name of the first Job that a CronJob makes.
func (w *world) untilScheduled(name string) string {
	w.t.Helper()
	ctx, cancel := w.context()
	defer cancel()
	var job string
	jobs := cache.NewListWatchFromClient(w.client.BatchV1().RESTClient(), "jobs", w.namespace, fields.Everything())
	_, err := watchtools.UntilWithSync(ctx, jobs, &batchv1.Job{}, nil, func(ev watch.Event) (bool, error) {
		j, ok := ev.Object.(*batchv1.Job)
		if !ok || !slices.ContainsFunc(j.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "CronJob" && o.Name == name }) {
			return false, nil
		}
		job = j.Name
		return true, nil
	})
	must(w.t, err)
	return job
}

// deletions are the ways in which a Job is deleted; left says whether its pods stay.
var deletions = []struct {
	name   string
	policy metav1.DeletionPropagation
	left   bool
}{
	{"background", metav1.DeletePropagationBackground, false},
	{"foreground", metav1.DeletePropagationForeground, false},
	{"orphan", metav1.DeletePropagationOrphan, true},
}

func (w *world) delete(job string, how metav1.DeletionPropagation) {
	w.t.Helper()
	must(w.t, w.client.BatchV1().Jobs(w.namespace).Delete(w.t.Context(), job, metav1.DeleteOptions{PropagationPolicy: &how}))
}

// untilNoPods returns once a Job has no pods or, if they are left, once they carry no finalizer.
func (w *world) untilNoPods(job string, left bool) {
	w.t.Helper()
	ctx, cancel := w.context()
	defer cancel()
	of := labels.SelectorFromSet(labels.Set{batchv1.JobNameLabel: job}).String()
	pods := cache.NewFilteredListWatchFromClient(w.client.CoreV1().RESTClient(), "pods", w.namespace, func(o *metav1.ListOptions) { o.LabelSelector = of })
	var store cache.Store // at least as new as the event
	over := func() bool {
		return !slices.ContainsFunc(store.List(), func(obj any) bool { return !left || len(obj.(*corev1.Pod).Finalizers) > 0 })
	}
	_, err := watchtools.UntilWithSync(ctx, pods, &corev1.Pod{}, func(s cache.Store) (bool, error) {
		store = s
		return over(), nil
	}, func(watch.Event) (bool, error) { return over(), nil })
	if err != nil {
		w.t.Fatalf("pods of the deleted Job %s are left: %v: %v", job, err, store.List())
	}
}

// namespaceEnds has a namespace deleted with all its Jobs amid their work.
func (w *world) namespaceEnds() {
	w.t.Helper()
	s := indexedSpec(4)
	s.BackoffLimitPerIndex = ptr.To[int32](3)
	w.run("per-index", s, byIndex(map[string]int32{"0": 1, "1": -1, "2": -1, "3": -1}))
	w.run("plain", spec{Completions: ptr.To[int32](9), Parallelism: ptr.To[int32](3)}, hold)
	w.until("per-index", "failing", func(j *batchv1.Job) bool { return j.Status.Failed > 0 })
	w.until("plain", "running", func(j *batchv1.Job) bool { return j.Status.Active == 3 })
	must(w.t, w.client.CoreV1().Namespaces().Delete(w.t.Context(), w.namespace, metav1.DeleteOptions{}))
	ctx, cancel := w.context()
	defer cancel()
	namespaces := cache.NewListWatchFromClient(w.client.CoreV1().RESTClient(), "namespaces", "", fields.OneTermEqualSelector(metav1.ObjectNameField, w.namespace))
	gone := func(s cache.Store) (bool, error) { return len(s.List()) == 0, nil }
	var last *corev1.Namespace
	_, err := watchtools.UntilWithSync(ctx, namespaces, &corev1.Namespace{}, gone, func(ev watch.Event) (bool, error) {
		last, _ = ev.Object.(*corev1.Namespace)
		return ev.Type == watch.Deleted, nil
	})
	if err != nil {
		var why []string
		for _, c := range last.Status.Conditions {
			why = append(why, c.Message)
		}
		w.t.Errorf("namespace %s isn't gone: %v: %s", w.namespace, err, strings.Join(why, "; "))
	}
}
