package main

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/harness"
)

// start measures errand serve from exec to ready, with an empty data directory.
func (b *bench) start(ctx context.Context) error {
	var figures []float64
	for range b.runs {
		if err := b.with(ctx, func(e *harness.Errand) error {
			figures = append(figures, float64(e.StartTime.Milliseconds()))
			return nil
		}); err != nil {
			return err
		}
	}
	b.row("errand serve, empty data directory → ready, node Ready", "ms", figures)
	return nil
}

// job measures the tour's Job from the patch that resumes it to Complete.
func (b *bench) job(ctx context.Context) error {
	return b.with(ctx, func(e *harness.Errand) error {
		client, err := e.Client()
		if err != nil {
			return err
		}
		var figures []float64
		for i := range b.runs + 1 {
			took, err := resume(ctx, client, fmt.Sprintf("echo-%d", i))
			if err != nil {
				return err
			}
			if i > 0 { // the first pulls the image
				figures = append(figures, float64(took.Milliseconds()))
			}
		}
		b.row("the tour's Job (2 pods, image present), patch → Complete", "ms", figures)
		return nil
	})
}

func resume(ctx context.Context, client kubernetes.Interface, name string) (time.Duration, error) {
	jobs := client.BatchV1().Jobs("default")
	job := echoJob(name, 2, 2)
	job.Spec.Suspend = ptr.To(true)
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if _, err := await(ctx, client, name, batchv1.JobSuspended); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := jobs.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{}); err != nil {
		return 0, err
	}
	_, err := await(ctx, client, name, batchv1.JobComplete)
	return time.Since(began), err
}

// throughput measures one Job of many short pods, twenty at a time, and what
// each costs the whole machine.
func (b *bench) throughput(ctx context.Context) error {
	var rates, cpus []float64
	for range 3 {
		err := b.with(ctx, func(e *harness.Errand) error {
			client, err := e.Client()
			if err != nil {
				return err
			}
			if _, err := resume(ctx, client, "warm-up"); err != nil {
				return err
			}
			busy, began := busyTime(), time.Now()
			job := echoJob("many", b.pods, 20)
			if _, err := client.BatchV1().Jobs("default").Create(ctx, job, metav1.CreateOptions{}); err != nil {
				return err
			}
			if _, err := await(ctx, client, "many", batchv1.JobComplete); err != nil {
				return err
			}
			rates = append(rates, float64(b.pods)/time.Since(began).Seconds())
			cpus = append(cpus, float64((busyTime()-busy).Milliseconds())/float64(b.pods))
			return nil
		})
		if err != nil {
			return err
		}
	}
	b.row(fmt.Sprintf("one Job of %d echo pods, parallelism 20", b.pods), "pods/s", rates)
	b.row("the same, CPU a pod, whole machine", "ms", cpus)
	return nil
}

// settle is how long an errand is left alone before its rest is measured.
const settle = 10 * time.Second

// atRest measures what an errand costs that has nothing to do.
func (b *bench) atRest(ctx context.Context) error {
	return b.with(ctx, func(e *harness.Errand) error {
		pids, err := family(e)
		if err != nil {
			return err
		}
		if err := pass(ctx, settle); err != nil {
			return err
		}
		before, err := cpuTime(pids)
		if err != nil {
			return err
		}
		if err := pass(ctx, b.idle); err != nil {
			return err
		}
		after, err := cpuTime(pids)
		if err != nil {
			return err
		}
		rss, err := residentBytes(pids)
		if err != nil {
			return err
		}
		b.row("idle: RSS of errand and errand-shim", "MB", []float64{float64(rss) / 1e6})
		b.row("idle: CPU a minute, errand and errand-shim", "ms", []float64{float64((after - before).Milliseconds()) * float64(time.Minute) / float64(b.idle)})
		return nil
	})
}

func echoJob(name string, completions, parallelism int) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			Completions: ptr.To(int32(completions)),
			Parallelism: ptr.To(int32(parallelism)),
			Template: v1.PodTemplateSpec{Spec: v1.PodSpec{
				RestartPolicy: v1.RestartPolicyNever,
				Containers: []v1.Container{{
					Name:            "echo",
					Image:           "busybox:latest",
					ImagePullPolicy: v1.PullIfNotPresent,
					Command:         []string{"echo", "Hello, Job"},
				}},
			}},
		},
	}
}

// await watches until the Job has the condition.
func await(ctx context.Context, client kubernetes.Interface, name string, condition batchv1.JobConditionType) (*batchv1.Job, error) {
	w, err := client.BatchV1().Jobs("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		job, ok := event.Object.(*batchv1.Job)
		if !ok || event.Type == watch.Deleted {
			return nil, fmt.Errorf("watch job %s: %s %v", name, event.Type, event.Object)
		}
		for _, c := range job.Status.Conditions {
			if c.Status != v1.ConditionTrue {
				continue
			}
			if c.Type == condition {
				return job, nil
			}
			if c.Type == batchv1.JobFailed {
				return nil, fmt.Errorf("job %s failed: %s: %s", name, c.Reason, c.Message)
			}
		}
	}
	return nil, fmt.Errorf("watch job %s: it ended: %w", name, ctx.Err())
}
