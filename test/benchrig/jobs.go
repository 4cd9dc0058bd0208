package benchrig

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
)

// EchoJob is a Job whose pods print a line and end.
func EchoJob(name string, completions, parallelism int) *batchv1.Job {
	return Job(name, completions, parallelism, Pod("echo", "Hello, Job"))
}

// Job is a Job of such pods.
func Job(name string, completions, parallelism int, pod v1.PodSpec) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			Completions: ptr.To(int32(completions)),
			Parallelism: ptr.To(int32(parallelism)),
			Template:    v1.PodTemplateSpec{Spec: pod},
		},
	}
}

// Pod is a pod of one container.
func Pod(command ...string) v1.PodSpec {
	return v1.PodSpec{
		RestartPolicy: v1.RestartPolicyNever,
		Containers: []v1.Container{{
			Name:            "main",
			Image:           Image,
			ImagePullPolicy: v1.PullIfNotPresent,
			Command:         command,
		}},
	}
}

// Resume makes a Job of two echo pods that is suspended, resumes it, and returns
// how long it took from then on to Complete.
func Resume(ctx context.Context, client kubernetes.Interface, name string) (time.Duration, error) {
	jobs := client.BatchV1().Jobs("default")
	job := EchoJob(name, 2, 2)
	job.Spec.Suspend = ptr.To(true)
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if err := AwaitJob(ctx, client, name, has(batchv1.JobSuspended)); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := jobs.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{}); err != nil {
		return 0, err
	}
	err := AwaitJob(ctx, client, name, has(batchv1.JobComplete))
	return time.Since(began), err
}

// Spending is what one Job of many short pods took.
type Spending struct {
	Rate float64 // pods/s
	// CPU a pod. Groups is that of the containers' cgroups, and of what starts them there.
	Machine, Errand, Shim, Groups time.Duration
}

// Many runs a Job of so many echo pods in an errand, once the image is there.
func Many(ctx context.Context, r *Run, pods, parallelism int) (Spending, error) {
	var s Spending
	client, err := r.Client()
	if err != nil {
		return s, err
	}
	if _, err := Resume(ctx, client, "warm-up"); err != nil {
		return s, err
	}
	before, err := Look(r.Errand)
	if err != nil {
		return s, err
	}
	if _, err := client.BatchV1().Jobs("default").Create(ctx, EchoJob("many", pods, parallelism), metav1.CreateOptions{}); err != nil {
		return s, err
	}
	if err := AwaitJob(ctx, client, "many", has(batchv1.JobComplete)); err != nil {
		return s, err
	}
	after, err := Look(r.Errand)
	if err != nil {
		return s, err
	}
	each := time.Duration(pods)
	return Spending{
		Rate:    float64(pods) / after.At.Sub(before.At).Seconds(),
		Machine: (after.Machine - before.Machine) / each,
		Errand:  (after.Errand - before.Errand) / each,
		Shim:    (after.Shim - before.Shim) / each,
		Groups:  (after.Runtime - before.Runtime) / each,
	}, nil
}

func has(condition batchv1.JobConditionType) func(*batchv1.Job) bool {
	return func(job *batchv1.Job) bool {
		for _, c := range job.Status.Conditions {
			if c.Type == condition && c.Status == v1.ConditionTrue {
				return true
			}
		}
		return false
	}
}

// AwaitJob watches until the Job is as it should be. A Job that fails is an error.
func AwaitJob(ctx context.Context, client kubernetes.Interface, name string, right func(*batchv1.Job) bool) error {
	w, err := client.BatchV1().Jobs("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		job, ok := event.Object.(*batchv1.Job)
		if !ok || event.Type == watch.Deleted {
			return fmt.Errorf("watch job %s: %s %v", name, event.Type, event.Object)
		}
		if right(job) {
			return nil
		}
		if has(batchv1.JobFailed)(job) {
			return fmt.Errorf("job %s failed: %v", name, job.Status.Conditions)
		}
	}
	return fmt.Errorf("watch job %s: it ended: %w", name, ctx.Err())
}
