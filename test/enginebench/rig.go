package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/jobs"
	"errand.dev/errand/internal/podgc"
)

const (
	namespace = "default"
	// enders is how many pods are said to have ended at a time.
	enders = 32
	// collectorWrites is how many pods errand serve lets the collector delete at once.
	collectorWrites = 64
)

// rig is a server with an engine, and a loop in place of a node.
type rig struct {
	client   kubernetes.Interface
	pods     chan *corev1.Pod
	finished chan *batchv1.Job
	counted  chan counted
	// failed is closed when a part has failed, or at stop, which says how.
	failed <-chan struct{}
	stop   func() error
}

// counted tells that more pods have been counted, and when.
type counted struct {
	more int
	at   time.Time
}

func startRig(ctx context.Context) (*rig, error) {
	dir, err := os.MkdirTemp("/tmp", "errand-engine-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	r := &rig{
		pods: make(chan *corev1.Pod, 1<<13), finished: make(chan *batchv1.Job, 1<<12), counted: make(chan counted, 1<<13),
		failed: ctx.Done(),
	}
	r.stop = func() error {
		cancel()
		return errors.Join(group.Wait(), os.RemoveAll(dir))
	}
	if err := r.start(ctx, group, dir); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

func (r *rig) start(ctx context.Context, group *errgroup.Group, dir string) error {
	server, err := apiserver.New(ctx, apiserver.Config{
		DataDir: dir, RuntimeDir: dir, Listen: "127.0.0.1:0", Kubeconfig: filepath.Join(dir, "kubeconfig"), EtcdQuotaBytes: 8 << 30,
	})
	if err != nil {
		return err
	}
	r.client = server.Client()
	engine, err := jobs.New(jobs.Config{
		Client: r.client, Jobs: server.Informers().Batch().V1().Jobs(), Pods: server.Informers().Core().V1().Pods(),
	})
	if err != nil {
		return err
	}
	if err := r.follow(server); err != nil {
		return err
	}
	// As in errand serve: without it, all pods that ever ran would stay.
	deleter, err := server.ClientAs(serviceaccount.UserInfo("kube-system", "pod-garbage-collector", ""), collectorWrites)
	if err != nil {
		return err
	}
	collector, err := podgc.New(deleter, server.Informers().Core().V1().Pods(), podgc.DefaultThreshold)
	if err != nil {
		return err
	}
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { collector.Run(ctx); return nil })
	group.Go(func() error { return engine.Run(ctx) })
	for range enders {
		group.Go(func() error { return r.endPods(ctx) })
	}
	for _, ready := range []<-chan struct{}{server.Ready(), engine.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err = r.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// follow notes new pods and finished Jobs.
func (r *rig) follow(server *apiserver.Server) error {
	_, err := server.Informers().Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { r.pods <- obj.(*corev1.Pod) },
	})
	if err != nil {
		return err
	}
	_, err = server.Informers().Batch().V1().Jobs().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, obj any) {
			before, job := old.(*batchv1.Job), obj.(*batchv1.Job)
			if more := job.Status.Succeeded - before.Status.Succeeded; more > 0 {
				r.counted <- counted{int(more), time.Now()}
			}
			if isOver(job) && !isOver(before) {
				r.finished <- job
			}
		},
	})
	return err
}

func isOver(job *batchv1.Job) bool {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// endPods says of new pods that they have succeeded. A pod that has changed meanwhile is written on top of what the server has.
func (r *rig) endPods(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case pod := <-r.pods:
			pod = pod.DeepCopy()
			pod.ResourceVersion = ""
			pod.Status.Phase = corev1.PodSucceeded
			_, err := r.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("end pod %s: %w", pod.Name, err)
			}
		}
	}
}

// runJobs creates the Jobs of a load and waits for their ends. It returns when nine tenths of their pods had been counted.
func (r *rig) runJobs(ctx context.Context, name string, l load) (nineTenths time.Time, err error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(enders)
	for i := range l.jobs {
		group.Go(func() error {
			_, err := r.client.BatchV1().Jobs(namespace).Create(gctx, newJob(fmt.Sprintf("%s-%d", name, i), l), metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return time.Time{}, err
	}
	for done, total := 0, 0; done < l.jobs; {
		select {
		case c := <-r.counted:
			if l.pods() >= 10_000 && total*10/l.pods() != (total+c.more)*10/l.pods() {
				fmt.Fprintf(os.Stderr, "%s: %d pods counted, %s of CPU\n", name, total+c.more, cpuTime().Round(time.Millisecond))
			}
			if total += c.more; nineTenths.IsZero() && total >= l.pods()*9/10 {
				nineTenths = c.at
			}
		case job := <-r.finished:
			done++
			if int(job.Status.Succeeded) != l.completions || job.Status.Failed != 0 {
				return time.Time{}, fmt.Errorf("%s has ended with %+v", job.Name, job.Status)
			}
		case <-r.failed:
			return time.Time{}, errors.New("the server, the engine or the loop has failed")
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	return nineTenths, nil
}

func newJob(name string, l load) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			Completions: ptr.To(int32(l.completions)), Parallelism: ptr.To(int32(l.parallelism)), CompletionMode: &l.mode,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "work", Image: "busybox"}},
			}},
		},
	}
}
