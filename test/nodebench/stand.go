package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/benchrig"
)

// settle is how long an errand is left alone before its rest is measured: what
// watch caches keep for the sake of a burst of changes they keep for 75 s.
const settle = 15 * time.Second

// runAll makes a Job of pods that run on, and returns once all are ready.
func runAll(ctx context.Context, client kubernetes.Interface, name string, pods int, pod v1.PodSpec) error {
	pod.TerminationGracePeriodSeconds = ptr.To[int64](0)
	job := benchrig.Job(name, pods, pods, pod)
	if _, err := client.BatchV1().Jobs("default").Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return err
	}
	return benchrig.AwaitJob(ctx, client, name, func(j *batchv1.Job) bool { return ptr.Deref(j.Status.Ready, 0) == int32(pods) })
}

// sleep measures what pods that do nothing cost.
func (b *bench) sleep(ctx context.Context) error {
	return b.With(ctx, func(r *benchrig.Run) error {
		client, err := r.Client()
		if err != nil {
			return err
		}
		if _, err := benchrig.Resume(ctx, client, "warm-up"); err != nil {
			return err
		}
		if err := benchrig.Pass(ctx, settle); err != nil {
			return err
		}
		without, err := benchrig.Look(r.Errand)
		if err != nil {
			return err
		}
		if err := runAll(ctx, client, "sleep", b.sleepers, benchrig.Pod("sleep", "86400")); err != nil {
			return err
		}
		up, err := benchrig.Look(r.Errand)
		if err != nil {
			return err
		}
		if err := benchrig.Pass(ctx, settle); err != nil {
			return err
		}
		before, err := benchrig.Look(r.Errand)
		if err != nil {
			return err
		}
		if err := benchrig.Pass(ctx, b.rest); err != nil {
			return err
		}
		after, err := benchrig.Look(r.Errand)
		if err != nil {
			return err
		}
		b.reportSleep(without, up, before, after)
		return nil
	})
}

func (b *bench) reportSleep(without, up, before, after benchrig.Usage) {
	mb := func(now, then int64) benchrig.Figures {
		return benchrig.Figures{float64(now-then) / 1e6 / float64(b.sleepers)}
	}
	b.row(fmt.Sprintf("%d sleeping pods, created → all ready", b.sleepers), "", "s", benchrig.Figures{up.At.Sub(without.At).Seconds()})
	held, had := after.ErrandMemory.Add(after.ShimMemory), without.ErrandMemory.Add(without.ShimMemory)
	b.row("RSS a pod: errand and errand-shim", "1 MB", "MB", mb(held.Resident, had.Resident))
	b.row("of that, anonymous memory", "", "MB", mb(held.Anonymous, had.Anonymous))
	b.row("errand-shim's RSS a pod", "", "MB", mb(after.ShimMemory.Resident, without.ShimMemory.Resident))
	spent := after.Errand + after.Shim - before.Errand - before.Shim
	b.row("CPU, of one core: errand and errand-shim", "1 %", "%", benchrig.Figures{100 * spent.Seconds() / after.At.Sub(before.At).Seconds()})
}

// enders is how many pods end while errand is away.
const enders = 50

// restart measures how soon after it was killed an errand knows its pods again:
// those that went on, and those that ended meanwhile.
func (b *bench) restart(ctx context.Context) error {
	return b.With(ctx, func(r *benchrig.Run) error {
		client, err := r.Client()
		if err != nil {
			return err
		}
		if err := runAll(ctx, client, "stay", b.running-enders, benchrig.Pod("sleep", "86400")); err != nil {
			return err
		}
		var ready, right, cpu benchrig.Figures
		for i := range b.runs {
			took, err := b.restartOnce(ctx, r, fmt.Sprintf("end-%d", i))
			if err != nil {
				return err
			}
			ready = append(ready, ms(took.ready))
			right = append(right, ms(took.right))
			cpu = append(cpu, ms(took.cpu))
		}
		b.row(fmt.Sprintf("errand killed and started, %d pods running, %d of which end meanwhile → node Ready", b.running, enders), "", "ms", ready)
		b.row("→ all pods' statuses right", "2000 ms", "ms", right)
		b.row("errand's CPU until then", "", "ms", cpu)
		return nil
	})
}

// takeover is what it took an errand to know its pods again: until it said that
// it is ready, and until the API showed all pods as they are.
type takeover struct{ ready, right, cpu time.Duration }

// restartOnce kills errand, lets the pods of a new Job end, and starts it. All of
// them wait for the same FIFO to be opened.
func (b *bench) restartOnce(ctx context.Context, r *benchrig.Run, name string) (took takeover, err error) {
	client, err := r.Client()
	if err != nil {
		return took, err
	}
	fifo, err := makeFIFO(filepath.Join(b.Dir(), name))
	if err != nil {
		return took, err
	}
	if err := runAll(ctx, client, name, enders, withFolder(benchrig.Pod("cat", "/folder/"+name), b.Dir())); err != nil {
		return took, errors.Join(err, fifo.Close())
	}
	began := time.Now()
	// The pods' cat reads the FIFO's end when errand has gone.
	if err := errors.Join(r.Kill(), fifo.Close()); err != nil {
		return took, err
	}
	if err := r.Again(ctx); err != nil {
		return took, err
	}
	took.ready = time.Since(began)
	if client, err = r.Client(); err != nil {
		return took, err
	}
	if err := b.awaitRight(ctx, client, name); err != nil {
		return took, err
	}
	took.right = time.Since(began)
	took.cpu, err = benchrig.CPU(r.Errand)
	return took, err
}

// awaitRight returns once the API shows that of the pods those of the Job ended
// well, and all others run and are ready.
func (b *bench) awaitRight(ctx context.Context, client kubernetes.Interface, ended string) error {
	pods := client.CoreV1().Pods("default")
	list := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, o)
		},
	}
	states := map[string]bool{}
	wrong := 0
	_, err := watchtools.UntilWithSync(ctx, list, &v1.Pod{}, nil, func(e watch.Event) (bool, error) {
		pod, ok := e.Object.(*v1.Pod)
		switch {
		case !ok || e.Type == watch.Deleted:
			return false, fmt.Errorf("watch pods: %s %v", e.Type, e.Object)
		case pod.Labels[batchv1.JobNameLabel] == ended:
			states[pod.Name] = pod.Status.Phase == v1.PodSucceeded
		case pod.Labels[batchv1.JobNameLabel] == "stay":
			states[pod.Name] = isReady(pod)
			if !states[pod.Name] {
				return false, fmt.Errorf("the pod %s ran all the time and is shown as %s, %v", pod.Name, pod.Status.Phase, pod.Status.Conditions)
			}
		}
		wrong = b.running - len(states)
		for _, right := range states {
			if !right {
				wrong++
			}
		}
		return wrong == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%d pods aren't shown as they are: %w", wrong, err)
	}
	return nil
}

func isReady(pod *v1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodReady {
			return pod.Status.Phase == v1.PodRunning && c.Status == v1.ConditionTrue
		}
	}
	return false
}
