//go:build cluster

package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

const (
	// patience bounds every wait: far more than anything takes, so that only a hang meets it.
	patience = 2 * time.Minute

	managedByErrand = "errand.dev/job-controller"
	withoutJobs     = "*,-job-controller"
)

// impatient are delays after failures for which tests needn't wait.
var impatient = []string{"--pod-failure-backoff=10ms", "--max-pod-failure-backoff=100ms"}

// startCluster runs a control plane with these controllers of upstream's until the test's end, errand controller not yet.
func startCluster(t *testing.T, controllers string) *cluster.Cluster {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "clu-") // a unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	began := time.Now()
	c, err := cluster.Start(t.Context(), bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("CLUSTER_SAID") != "" { // it is much
			t.Log(c.Said())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, c.Grant(t.Context(), "../../deploy/controller"))
	_, err = c.StartManager(controllers)
	must(t, err)
	must(t, c.AwaitAccount(t.Context(), "default"))
	t.Logf("the cluster was ready after %s", time.Since(began).Round(time.Millisecond))
	return c
}

// startController runs an errand controller that acts, until the cluster's end.
func startController(t *testing.T, c *cluster.Cluster, args ...string) *cluster.Process {
	t.Helper()
	p, err := c.StartController(append(args, impatient...)...)
	must(t, err)
	must(t, cluster.AwaitController(t.Context(), p))
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is where a test's Jobs are, and whose they are.
type world struct {
	t         *testing.T
	client    kubernetes.Interface
	namespace string
	// manager is the spec.managedBy of the Jobs; empty: none.
	manager string
}

// newWorld makes a namespace for Jobs of that manager.
func newWorld(t *testing.T, c *cluster.Cluster, namespace, manager string) *world {
	t.Helper()
	_, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	must(t, c.AwaitAccount(t.Context(), namespace))
	return &world{t: t, client: c.Client, namespace: namespace, manager: manager}
}

// with is the same for a subtest: what goes wrong fails t.
func (w *world) with(t *testing.T) *world {
	sub := *w
	sub.t = t
	return &sub
}

func (w *world) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.t.Context(), patience)
}

// spec is a Job's, in a few words.
type spec = batchv1.JobSpec

// podSpec is what runs nowhere.
func podSpec() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Containers:    []corev1.Container{{Name: "main", Image: "busybox"}},
	}}
}

// complete gives a Job's specification what all have here.
func (w *world) complete(s spec) spec {
	s.Template = podSpec()
	if w.manager != "" {
		s.ManagedBy = &w.manager
	}
	return s
}

// create makes a Job.
func (w *world) create(name string, s spec) *batchv1.Job {
	w.t.Helper()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: w.complete(s)}
	j, err := w.client.BatchV1().Jobs(w.namespace).Create(w.t.Context(), j, metav1.CreateOptions{})
	must(w.t, err)
	return j
}

// play ends the Job's pods until the test's end.
func (w *world) play(job string, decide cluster.Decision) *cluster.Player {
	w.t.Helper()
	p, err := cluster.Play(context.WithoutCancel(w.t.Context()), w.client, w.namespace, job, decide)
	must(w.t, err)
	w.t.Cleanup(p.Stop)
	return p
}

// run makes a Job and ends its pods.
func (w *world) run(name string, s spec, decide cluster.Decision) *cluster.Player {
	w.t.Helper()
	p := w.play(name, decide)
	w.create(name, s)
	return p
}

// update changes a Job's specification.
func (w *world) update(name string, edit func(*spec)) {
	w.t.Helper()
	must(w.t, w.tryUpdate(name, edit))
}

func (w *world) tryUpdate(name string, edit func(*spec)) error {
	for {
		j, err := w.client.BatchV1().Jobs(w.namespace).Get(w.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		edit(&j.Spec)
		_, err = w.client.BatchV1().Jobs(w.namespace).Update(w.t.Context(), j, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			return err
		}
	}
}

// until returns the Job once it is as asked for. It is waited for as long as it changes: how long a large Job takes is the machine's business.
func (w *world) until(name, what string, is func(*batchv1.Job) bool) *batchv1.Job {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	stuck := time.AfterFunc(patience, cancel)
	defer stuck.Stop()
	jobs := cache.NewListWatchFromClient(w.client.BatchV1().RESTClient(), "jobs", w.namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	var last *batchv1.Job
	_, err := watchtools.UntilWithSync(ctx, jobs, &batchv1.Job{}, nil, func(ev watch.Event) (bool, error) {
		j, ok := ev.Object.(*batchv1.Job)
		if !ok || ev.Type == watch.Deleted {
			return false, nil
		}
		stuck.Reset(patience)
		last = j
		return is(j), nil
	})
	if err != nil && last != nil {
		w.t.Fatalf("Job %s never was %s, and didn't change for %s: %v; it was last: %+v", name, what, patience, err, last.Status)
	}
	must(w.t, err)
	return last
}

// untilGone returns once a Job isn't there any more; it must have been.
func (w *world) untilGone(name string) {
	w.t.Helper()
	ctx, cancel := w.context()
	defer cancel()
	jobs := cache.NewListWatchFromClient(w.client.BatchV1().RESTClient(), "jobs", w.namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	gone := func(store cache.Store) (bool, error) { return len(store.List()) == 0, nil }
	_, err := watchtools.UntilWithSync(ctx, jobs, &batchv1.Job{}, gone, func(ev watch.Event) (bool, error) { return ev.Type == watch.Deleted, nil })
	must(w.t, err)
}

// pods are those of a Job that are there.
func (w *world) pods(job string) []corev1.Pod {
	w.t.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(w.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	must(w.t, err)
	return list.Items
}

// condition is a Job's, if it is true.
func condition(j *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range j.Status.Conditions {
		if c := &j.Status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func finished(j *batchv1.Job) bool {
	return condition(j, batchv1.JobComplete) != nil || condition(j, batchv1.JobFailed) != nil
}

// result is what a finished Job must say.
type result struct {
	end               batchv1.JobConditionType
	reason            string
	succeeded, failed int32
	// indexes are completedIndexes and failedIndexes, of an Indexed Job.
	indexes [2]string
}

// ends waits for the Job's end, and compares.
func (w *world) ends(name string, want result) *batchv1.Job {
	w.t.Helper()
	j := w.until(name, "finished", finished)
	s := j.Status
	got := result{succeeded: s.Succeeded, failed: s.Failed, indexes: [2]string{s.CompletedIndexes, ptr.Deref(s.FailedIndexes, "")}}
	for _, end := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if c := condition(j, end); c != nil {
			got.end, got.reason = end, c.Reason
		}
	}
	if got != want {
		w.t.Errorf("Job %s has ended with %+v, want %+v", name, got, want)
	}
	uncounted := ptr.Deref(s.UncountedTerminatedPods, batchv1.UncountedTerminatedPods{})
	if s.Active != 0 || ptr.Deref(s.Terminating, 0) != 0 || len(uncounted.Succeeded)+len(uncounted.Failed) > 0 {
		w.t.Errorf("Job %s has ended, but: %+v", name, s)
	}
	for _, p := range w.pods(name) {
		if len(p.Finalizers) > 0 {
			w.t.Errorf("Job %s has ended, but its pod %s still has %v", name, p.Name, p.Finalizers)
		}
	}
	return j
}
