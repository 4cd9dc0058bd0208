package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// players is how many pods of a Job are ended at a time.
const players = 32

// An End is how a pod ends: the status that a node would report.
type End struct {
	// Code is the exit code of its container; 0 means that the pod succeeds.
	Code int32
	// Condition is one that the pod has, such as DisruptionTarget.
	Condition corev1.PodConditionType
}

// A Decision says how a pod ends, the n-th of its Job that was seen, from 1; nil leaves it alone.
type Decision func(pod *corev1.Pod, n int) *End

// A Player plays the node for one Job: it ends each pod as soon as it is there. API servers may come and go meanwhile: what it decided
// for a pod stands, and is told until it is accepted.
type Player struct {
	client    kubernetes.Interface
	namespace string
	decide    Decision
	queue     workqueue.TypedRateLimitingInterface[types.UID]
	stop      context.CancelFunc
	done      sync.WaitGroup

	mu    sync.Mutex
	names map[types.UID]string
	ends  map[types.UID]End // those decided
	more  chan struct{}     // closed when there is another pod
}

// Play starts one, which ends with Stop.
func Play(ctx context.Context, client kubernetes.Interface, namespace, job string, decide Decision) (*Player, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Player{
		client: client, namespace: namespace, decide: decide, stop: cancel,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](5*time.Millisecond, time.Second)),
		names: map[types.UID]string{}, ends: map[types.UID]End{}, more: make(chan struct{}),
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = batchv1.JobNameLabel + "=" + job }))
	pods := factory.Core().V1().Pods().Informer()
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { p.see(obj.(*corev1.Pod)) }}); err != nil {
		cancel()
		return nil, err
	}
	factory.StartWithContext(ctx)
	context.AfterFunc(ctx, p.queue.ShutDown)
	for range players {
		p.done.Go(func() { p.work(ctx) })
	}
	p.done.Go(func() { <-ctx.Done(); factory.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
		p.Stop()
		return nil, fmt.Errorf("watch the pods of Job %s: %w", job, ctx.Err())
	}
	return p, nil
}

// Stop ends it.
func (p *Player) Stop() {
	p.stop()
	p.done.Wait()
}

// see decides about a new pod.
func (p *Player) see(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.names[pod.UID]; known {
		return
	}
	p.names[pod.UID] = pod.Name
	close(p.more)
	p.more = make(chan struct{})
	if end := p.decide(pod, len(p.names)); end != nil {
		p.ends[pod.UID] = *end
		p.queue.Add(pod.UID)
	}
}

func (p *Player) work(ctx context.Context) {
	for {
		uid, over := p.queue.Get()
		if over {
			return
		}
		p.mu.Lock()
		name, end := p.names[uid], p.ends[uid]
		p.mu.Unlock()
		if err := EndPod(ctx, p.client, p.namespace, name, end); err == nil || apierrors.IsNotFound(err) {
			p.queue.Forget(uid)
		} else {
			p.queue.AddRateLimited(uid) // the API server is away
		}
		p.queue.Done(uid)
	}
}

// Ends returns how many pods it has ended, or is about to, by success and failure.
func (p *Player) Ends() (succeeded, failed int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, end := range p.ends {
		if end.Code == 0 {
			succeeded++
		} else {
			failed++
		}
	}
	return succeeded, failed
}

// Seen is how many pods it has seen.
func (p *Player) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names)
}

// AwaitSeen returns once it has seen n pods.
func (p *Player) AwaitSeen(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		seen, more := len(p.names), p.more
		p.mu.Unlock()
		if seen >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("%d pods were seen, not %d: %w", seen, n, ctx.Err())
		}
	}
}

// EndPod reports how a pod has ended.
func EndPod(ctx context.Context, client kubernetes.Interface, namespace, name string, end End) error {
	patch, err := json.Marshal(map[string]any{"status": end.status()})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Pods(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

func (e End) status() corev1.PodStatus {
	now := metav1.Now()
	s := corev1.PodStatus{Phase: corev1.PodSucceeded}
	if e.Code != 0 {
		s.Phase = corev1.PodFailed
	}
	s.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "busybox", ImageID: "busybox",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: e.Code, FinishedAt: now}},
	}}
	if e.Condition != "" {
		s.Conditions = []corev1.PodCondition{{Type: e.Condition, Status: corev1.ConditionTrue, LastTransitionTime: now}}
	}
	return s
}
