package main

import (
	"context"
	"fmt"
	"slices"
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
	b.row("errand serve, empty data directory → ready, node Ready", "1000 ms", "ms", figures)
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
		b.row("the tour's Job (2 pods, image present), patch → Complete", "300 ms", "ms", figures)
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

// parallelism is how many pods of the Job of many run at a time.
const parallelism = 20

// spending is what one Job of many short pods took, one figure a run.
type spending struct {
	rates                         []float64 // pods/s
	machine, errand, shim, groups []float64 // CPU a pod, ms; groups is that of the containers' cgroups, and of what starts them there
}

// throughput measures one Job of many short pods, started by errand itself and by the OCI runtime, and who spends what on each.
func (b *bench) throughput(ctx context.Context) error {
	own, err := b.many(ctx)
	if err != nil {
		return err
	}
	job := fmt.Sprintf("one Job of %d echo pods, parallelism %d", b.pods, parallelism)
	b.row(job, "25 pods/s", "pods/s", own.rates)
	b.report(own)
	foreign, err := b.many(ctx, "--native-launcher=false")
	if err != nil {
		return err
	}
	b.row("the same by the OCI runtime (--native-launcher=false)", "", "pods/s", foreign.rates)
	if len(b.bareRates) > 0 {
		// Where runc takes 50 ms of two cores for a container, the goals are 25 pods
		// of 40 containers a second, and 80 ms a pod.
		b.row("of the rate of the OCI runtime alone", "62 %", "%", scaled(foreign.rates, 100/median(b.bareRates)))
		b.row("CPU of the whole machine a pod, of the runtime's alone a container", "160 %", "%", scaled(foreign.machine, 100/median(b.bareCPU)))
	}
	b.report(foreign)
	return nil
}

func (b *bench) report(s *spending) {
	b.row("of that, CPU a pod: whole machine", "", "ms", s.machine)
	b.row("the container, and an OCI runtime that starts it", "", "ms", s.groups)
	b.row("errand", "", "ms", s.errand)
	b.row("errand-shim", "", "ms", s.shim)
}

// many runs the Job in errands of their own, with further flags.
func (b *bench) many(ctx context.Context, flags ...string) (*spending, error) {
	s := &spending{}
	for range b.runs {
		err := b.with(ctx, func(e *harness.Errand) error { return b.manyIn(ctx, e, s) }, flags...)
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (b *bench) manyIn(ctx context.Context, e *harness.Errand, s *spending) error {
	client, err := e.Client()
	if err != nil {
		return err
	}
	if _, err := resume(ctx, client, "warm-up"); err != nil {
		return err
	}
	before, err := look(e)
	if err != nil {
		return err
	}
	if _, err := client.BatchV1().Jobs("default").Create(ctx, echoJob("many", b.pods, parallelism), metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := await(ctx, client, "many", batchv1.JobComplete); err != nil {
		return err
	}
	after, err := look(e)
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.pods) }
	s.rates = append(s.rates, float64(b.pods)/after.at.Sub(before.at).Seconds())
	s.machine = append(s.machine, each(after.machine-before.machine))
	s.errand = append(s.errand, each(after.errand-before.errand))
	s.shim = append(s.shim, each(after.shim-before.shim))
	s.groups = append(s.groups, each(after.runtime-before.runtime))
	return nil
}

func scaled(figures []float64, by float64) []float64 {
	out := make([]float64, len(figures))
	for i, f := range figures {
		out[i] = f * by
	}
	return out
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}

// settle is how long an errand is left alone before its rest is measured.
const settle = 10 * time.Second

// atRest measures what an errand costs that has nothing to do.
func (b *bench) atRest(ctx context.Context) error {
	return b.with(ctx, func(e *harness.Errand) error {
		if err := pass(ctx, settle); err != nil {
			return err
		}
		var resident, anonymous, cpu []float64
		for range b.runs {
			before, err := look(e)
			if err != nil {
				return err
			}
			if err := pass(ctx, b.idle); err != nil {
				return err
			}
			after, err := look(e)
			if err != nil {
				return err
			}
			spent := after.errand + after.shim - before.errand - before.shim
			cpu = append(cpu, float64(spent.Milliseconds())*float64(time.Minute)/float64(b.idle))
			resident = append(resident, float64(after.resident)/1e6)
			anonymous = append(anonymous, float64(after.anonymous)/1e6)
		}
		b.row("idle: RSS of errand and errand-shim", "150 MB", "MB", resident)
		b.row("of that, anonymous memory (the rest is the programs' own pages)", "", "MB", anonymous)
		b.row("idle: CPU a minute, errand and errand-shim", "300 ms", "ms", cpu)
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
