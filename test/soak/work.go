package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"

	"errand.dev/errand/test/harness"
)

// kind is one of the Jobs that the work consists of.
type kind struct {
	name string
	// pods is how many it comes to, for sure.
	pods int
	// spec is the Job's spec, less its TTL.
	spec string
	// running: it is deleted once so many of its pods run; 0: it ends by itself.
	running int32
}

const busybox = `image: "busybox:latest", imagePullPolicy: IfNotPresent`

var kinds = []kind{
	{name: "echo", pods: 20, spec: `
completions: 20
parallelism: 10
template: {spec: {restartPolicy: Never, containers: [{name: work, ` + busybox + `, command: [echo, hello]}]}}`},
	{name: "fails", pods: 5, spec: `
backoffLimit: 4
parallelism: 2
completions: 20
template: {spec: {restartPolicy: Never, containers: [{name: work, ` + busybox + `, command: ["false"]}]}}`},
	{name: "again", pods: 5, spec: `
completions: 5
parallelism: 5
template: {spec: {restartPolicy: OnFailure, volumes: [{name: scratch, emptyDir: {}}], containers: [
  {name: work, ` + busybox + `, command: [sh, -c, "mkdir /scratch/seen && exit 1; exit 0"], volumeMounts: [{name: scratch, mountPath: /scratch}]}]}}`},
	{name: "inits", pods: 5, spec: `
completions: 5
parallelism: 5
template: {spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0,
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: conf, configMap: {name: kube-root-ca.crt}}],
  initContainers: [{name: first, ` + busybox + `, command: ["true"]}, {name: beside, restartPolicy: Always, ` + busybox + `, command: [sleep, "3600"]}],
  containers: [{name: work, ` + busybox + `, command: ["true"], volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: conf, mountPath: /conf}]}]}}`},
	{name: "shares", pods: 5, spec: `
completions: 5
parallelism: 5
template: {spec: {restartPolicy: Never, shareProcessNamespace: true, containers: [{name: work, ` + busybox + `, command: ["true"]}]}}`},
	{name: "sleeps", pods: 5, running: 5, spec: `
completions: 5
parallelism: 5
template: {spec: {restartPolicy: Never, terminationGracePeriodSeconds: 5, containers: [{name: work, ` + busybox + `, ports: [{containerPort: 80}], command: [sh, -c, "trap exit TERM; sleep 3600 & wait"],
  readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}]}}`},
}

func (k kind) job(name string) (*batchv1.Job, error) {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte(k.spec), &j.Spec); err != nil {
		return nil, fmt.Errorf("the Job %s: %w", k.name, err)
	}
	j.Spec.TTLSecondsAfterFinished = new(int32)
	return j, nil
}

// work makes Jobs.
type work struct {
	client  kubernetes.Interface
	workers int
	jobs    int // made so far
	done    int // pods
}

func newWork(ctx context.Context, e *harness.Errand, workers int) (*work, error) {
	client, err := e.Client()
	if err != nil {
		return nil, err
	}
	// Pods need it, and a controller makes it.
	_, err = watchtools.UntilWithSync(ctx, listWatch(client.CoreV1().ServiceAccounts("default"), "default"), &v1.ServiceAccount{}, nil,
		func(e watch.Event) (bool, error) { return e.Type == watch.Added, nil })
	return &work{client: client, workers: workers}, err
}

// leastPods is a portion that has each kind.
func (w *work) leastPods() int {
	n := 0
	for _, k := range kinds {
		n += k.pods
	}
	return n
}

// portion puts so many pods through, or a few more, and returns when all is gone of them that goes.
func (w *work) portion(ctx context.Context, pods int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type task struct {
		kind kind
		name string
	}
	tasks := make(chan task)
	var workers sync.WaitGroup
	for range w.workers {
		workers.Go(func() {
			for t := range tasks {
				if err := w.one(ctx, t.kind, t.name); err != nil {
					cancel(fmt.Errorf("job %s: %w", t.name, err))
				}
			}
		})
	}
	for left := pods; left > 0 && ctx.Err() == nil; {
		k := kinds[w.jobs%len(kinds)]
		w.jobs++
		w.done += k.pods
		left -= k.pods
		tasks <- task{k, fmt.Sprintf("%s-%d", k.name, w.jobs)}
	}
	close(tasks)
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return w.awaitNoPods(ctx)
}

// jobTimeout is far more than any Job takes.
const jobTimeout = 3 * time.Minute

// one runs a Job until it has gone.
func (w *work) one(ctx context.Context, k kind, name string) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	job, err := k.job(name)
	if err != nil {
		return err
	}
	jobs := w.client.BatchV1().Jobs("default")
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return err
	}
	deleted := false
	_, err = watchtools.UntilWithSync(ctx, listWatch(jobs, name), &batchv1.Job{},
		func(s cache.Store) (bool, error) { return len(s.List()) == 0, nil },
		func(e watch.Event) (bool, error) {
			j, ok := e.Object.(*batchv1.Job)
			switch {
			case !ok:
				return false, fmt.Errorf("%s %T", e.Type, e.Object)
			case e.Type == watch.Deleted:
				return true, nil
			case k.running > 0 && !deleted && j.Status.Ready != nil && *j.Status.Ready == k.running:
				deleted = true
				background := metav1.DeletePropagationBackground
				return false, jobs.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &background})
			}
			return false, nil
		})
	return err
}

func (w *work) awaitNoPods(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	there := map[string]bool{}
	_, err := watchtools.UntilWithSync(ctx, listWatch(w.client.CoreV1().Pods("default"), ""), &v1.Pod{},
		func(s cache.Store) (bool, error) { return len(s.List()) == 0, nil },
		func(e watch.Event) (bool, error) {
			p, ok := e.Object.(*v1.Pod)
			if !ok {
				return false, fmt.Errorf("%s %T", e.Type, e.Object)
			}
			if there[p.Name] = e.Type != watch.Deleted; !there[p.Name] {
				delete(there, p.Name)
			}
			return len(there) == 0, nil
		})
	if err != nil {
		return errors.Join(fmt.Errorf("%d pods stay", len(there)), err)
	}
	return nil
}

// lister is a client of one kind of object in one namespace.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// listWatch lists and watches one object, or all.
func listWatch[L runtime.Object](objects lister[L], name string) *cache.ListWatch {
	selector := fields.Everything()
	if name != "" {
		selector = fields.OneTermEqualSelector("metadata.name", name)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector.String()
			return objects.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector.String()
			return objects.Watch(ctx, o)
		},
	}
}
