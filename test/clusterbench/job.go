package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

const namespace = "default"

// parallelism bounds how many pods of a Job run at a time.
const parallelism = 500

// runJob runs a Job of so many pods, and returns how long it took from its creation to its end. Afterwards it and its pods are deleted.
func runJob(ctx context.Context, c *cluster.Cluster, pods int) (took time.Duration, err error) {
	name := "job-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	player, err := cluster.Play(ctx, c.Client, namespace, name, func(*corev1.Pod, int) *cluster.End { return &cluster.End{} })
	if err != nil {
		return 0, err
	}
	defer player.Stop()
	over := make(chan error, 1)
	watching := make(chan struct{})
	go func() { over <- awaitComplete(ctx, c, name, watching) }()
	select {
	case <-watching:
	case err := <-over:
		return 0, err
	}
	began := time.Now()
	if _, err := c.Client.BatchV1().Jobs(namespace).Create(ctx, newJob(name, pods), metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if err := <-over; err != nil {
		return 0, fmt.Errorf("the Job of %d pods: %w", pods, err)
	}
	took = time.Since(began)
	if player.Seen() != pods {
		return 0, fmt.Errorf("the Job of %d pods has made %d", pods, player.Seen())
	}
	return took, clear(ctx, c, name)
}

func newJob(name string, pods int) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			Completions: ptr.To(int32(pods)), Parallelism: ptr.To(int32(min(pods, parallelism))),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "main", Image: "busybox"}},
			}},
		},
	}
}

// awaitComplete closes watching once it watches, and returns once the Job is Complete.
func awaitComplete(ctx context.Context, c *cluster.Cluster, name string, watching chan<- struct{}) error {
	jobs := cache.NewListWatchFromClient(c.Client.BatchV1().RESTClient(), "jobs", namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	_, err := watchtools.UntilWithSync(ctx, jobs, &batchv1.Job{}, func(cache.Store) (bool, error) {
		close(watching)
		return false, nil
	}, func(ev watch.Event) (bool, error) {
		job, ok := ev.Object.(*batchv1.Job)
		if !ok {
			return false, nil
		}
		for _, cond := range job.Status.Conditions {
			switch {
			case cond.Type == batchv1.JobFailed && cond.Status == corev1.ConditionTrue:
				return false, fmt.Errorf("it has failed: %+v", job.Status)
			case cond.Type == batchv1.JobComplete && cond.Status == corev1.ConditionTrue:
				return true, nil
			}
		}
		return false, nil
	})
	return err
}

// clear deletes a finished Job and its pods: no garbage collector does.
func clear(ctx context.Context, c *cluster.Cluster, job string) error {
	of := metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job}
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if err := c.Client.CoreV1().Pods(namespace).DeleteCollection(ctx, now, of); err != nil {
		return err
	}
	alone := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	return c.Client.BatchV1().Jobs(namespace).Delete(ctx, job, alone)
}
