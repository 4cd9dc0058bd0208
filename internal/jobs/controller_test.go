package jobs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	kmetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/clock"
)

// rig is a Controller with its queue, workers and informers, on a fakeAPI, with a node that ends pods.
type rig struct {
	api        *fakeAPI
	controller *Controller
	stop       func()
}

// newRig starts a Controller; node decides about each pod that is created: how long it runs, and how it ends.
func newRig(t testing.TB, configure func(*Config), node func(*corev1.Pod) (time.Duration, corev1.PodPhase)) *rig {
	t.Helper()
	api := newFakeAPI(clock.RealClock{})
	f := newFeed(api)
	jobs, pods := f.informers()
	cfg := Config{Client: fakeClient{api: api}, Jobs: jobs, Pods: pods, Recorder: &record.FakeRecorder{}}
	if configure != nil {
		configure(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	created := make(chan *corev1.Pod, 100_000)
	wrote := api.wrote
	api.wrote = func(old, obj any) {
		wrote(old, obj)
		if pod, ok := obj.(*corev1.Pod); ok && old == nil {
			created <- pod
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { jobs.RunWithContext(ctx) })
	wg.Go(func() { pods.RunWithContext(ctx) })
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		var pods sync.WaitGroup
		defer pods.Wait()
		for {
			select {
			case pod := <-created:
				runs, phase := node(pod)
				if phase == "" {
					continue
				}
				pods.Go(func() {
					select {
					case <-time.After(runs):
						api.finish(pod, phase)
					case <-ctx.Done():
					}
				})
			case <-ctx.Done():
				return
			}
		}
	})
	return &rig{api: api, controller: c, stop: func() { cancel(); f.more.Broadcast(); wg.Wait() }}
}

// finish ends a pod as the node does.
func (a *fakeAPI) finish(pod *corev1.Pod, phase corev1.PodPhase) {
	now := a.now()
	a.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = "node", phase
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: now}}}}
	})
}

// Many Jobs with failures, through real informers, queues and workers, in bubble time: all end, exactly counted.
func TestControllerRunsJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		rig := newRig(t, nil, func(*corev1.Pod) (time.Duration, corev1.PodPhase) {
			mu.Lock()
			defer mu.Unlock()
			phase := corev1.PodSucceeded
			if r.IntN(10) == 0 {
				phase = corev1.PodFailed
			}
			return time.Duration(r.IntN(3000)) * time.Millisecond, phase
		})
		defer rig.stop()
		busy := 0
		rig.api.hook = func(verb, resource, _ string) fault {
			mu.Lock()
			defer mu.Unlock()
			if busy++; busy%17 == 0 {
				return fault{err: apierrors.NewTooManyRequests("busy", 1)}
			}
			return fault{}
		}
		<-rig.controller.Ready()
		for i := range 20 {
			rig.api.createJob(makeJob(fmt.Sprintf("job-%d", i)).completions(int32(i * 3)).parallelism(int32(i%5 + 1)).limit(1000).obj())
		}
		time.Sleep(12 * time.Hour) // of the bubble: nothing waits
		synctest.Wait()
		for i := range 20 {
			job := rig.api.job("default", fmt.Sprintf("job-%d", i))
			if !isTrue(job.Status.Conditions, batchv1.JobComplete) || job.Status.Succeeded != int32(i*3) {
				t.Errorf("%s: %+v", job.Name, job.Status)
			}
			if pods := rig.api.podsOf(job); len(pods) != int(job.Status.Succeeded+job.Status.Failed) {
				t.Errorf("%s: %d pods, counted %d and %d", job.Name, len(pods), job.Status.Succeeded, job.Status.Failed)
			}
		}
		for _, p := range rig.api.podsOf(nil) {
			if isTracked(p) {
				t.Errorf("%s keeps its finalizer", p.Name)
			}
		}
	})
}

// A finished Job is deleted by its TTL through the real queue.
func TestControllerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, nil, func(*corev1.Pod) (time.Duration, corev1.PodPhase) { return time.Second, corev1.PodSucceeded })
		defer rig.stop()
		rig.api.createJob(makeJob("job").ttl(100).obj())
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if job := rig.api.job("default", "job"); job.DeletionTimestamp != nil {
			t.Error("deleted early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if job := rig.api.job("default", "job"); job.DeletionTimestamp == nil {
			t.Error("not deleted after its TTL")
		}
	})
}

func TestNewRejects(t *testing.T) {
	if _, err := New(Config{Workers: -1, PodFailureBackoff: -1}); err == nil {
		t.Error("no error")
	}
}

// The metrics have upstream's names, labels and values.
func TestMetrics(t *testing.T) {
	registry := kmetrics.NewKubeRegistry()
	w := newWorld(t)
	if err := w.engine.metrics.register(registry.Register); err != nil {
		t.Fatal(err)
	}
	job := w.create(makeJob("job").completions(2).parallelism(2).obj())
	w.create(makeJob("theirs").managedBy("example.com/x").obj())
	w.settle()
	w.end(w.active(job)[0], corev1.PodFailed)
	w.settle()
	w.pass(time.Minute)
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name   string
		labels map[string]string
		value  float64
	}{
		{"job_controller_jobs_finished_total", map[string]string{"completion_mode": "NonIndexed", "result": "succeeded", "reason": "CompletionsReached"}, 1},
		{"job_controller_job_pods_finished_total", map[string]string{"completion_mode": "NonIndexed", "result": "succeeded"}, 2},
		{"job_controller_job_pods_finished_total", map[string]string{"completion_mode": "NonIndexed", "result": "failed"}, 1},
		{"job_controller_job_pods_creation_total", map[string]string{"reason": "new", "status": "succeeded"}, 2},
		{"job_controller_job_pods_creation_total", map[string]string{"reason": "recreate_terminating_or_failed", "status": "succeeded"}, 1},
		{"job_controller_terminated_pods_tracking_finalizer_total", map[string]string{"event": "add"}, 3},
		{"job_controller_terminated_pods_tracking_finalizer_total", map[string]string{"event": "delete"}, 3},
		{"job_controller_jobs_by_external_controller_total", map[string]string{"controller_name": "example.com/x"}, 1},
	} {
		sum := 0.0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == want.name && testutil.LabelsMatch(m, want.labels) {
					sum += m.GetCounter().GetValue()
				}
			}
		}
		if sum != want.value {
			t.Errorf("%s%v = %v, want %v", want.name, want.labels, sum, want.value)
		}
	}
}
