package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// inFlight is how many requests of a kind are made at a time: as many as errand's engine makes.
const inFlight = 32

// measureBare measures what no controller can do without, and nobody decides about: each pod is created with a finalizer, ended by the loop and
// released. It is the most that this machine's API server lets any controller reach beside that loop.
func measureBare(ctx context.Context, c *cluster.Cluster, s settings) ([]string, error) {
	if _, err := runBare(ctx, c, s.pods); err != nil { // the API server warms up
		return nil, err
	}
	pids := []int{c.API().PID(), c.Store().PID(), os.Getpid()}
	before, err := readAll(pids)
	if err != nil {
		return nil, err
	}
	times, err := repeat(s.largeRounds, func() (time.Duration, error) { return runBare(ctx, c, s.pods) })
	if err != nil {
		return nil, err
	}
	after, err := readAll(pids)
	if err != nil {
		return nil, err
	}
	row := append(append([]string{"no controller: the requests alone"}, rates(times, s.pods)...), "")
	for i := range pids {
		row = append(row, perPod(before[i], after[i], s.largeRounds*s.pods))
	}
	return append(row, "0", ""), nil
}

func runBare(ctx context.Context, c *cluster.Cluster, pods int) (took time.Duration, err error) {
	name := "bare-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	player, err := cluster.Play(ctx, c.Client, namespace, name, func(*corev1.Pod, int) *cluster.End { return &cluster.End{} })
	if err != nil {
		return 0, err
	}
	defer player.Stop()
	ended, stop, err := followEnds(ctx, c, name, pods)
	if err != nil {
		return 0, err
	}
	defer stop()
	began := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return createBare(gctx, c, name, pods) })
	group.Go(func() error { return releaseBare(gctx, c, ended, pods) })
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took = time.Since(began)
	return took, c.Client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)},
		metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
}

// followEnds tells the names of pods that have ended and carry a finalizer, by an informer: the API server drops watches that lag, and it goes on.
func followEnds(ctx context.Context, c *cluster.Cluster, name string, pods int) (ended <-chan string, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = batchv1.JobNameLabel + "=" + name }))
	stop = func() { cancel(); factory.Shutdown() }
	names := make(chan string, pods)
	over := func(obj any) bool {
		pod := obj.(*corev1.Pod)
		return pod.Status.Phase == corev1.PodSucceeded && len(pod.Finalizers) > 0
	}
	informer := factory.Core().V1().Pods().Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if over(obj) {
				names <- obj.(*corev1.Pod).Name
			}
		},
		UpdateFunc: func(old, obj any) {
			if over(obj) && !over(old) {
				names <- obj.(*corev1.Pod).Name
			}
		},
	})
	if err != nil {
		cancel()
		return nil, nil, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		stop()
		return nil, nil, fmt.Errorf("watch pods: %w", ctx.Err())
	}
	return names, stop, nil
}

func createBare(ctx context.Context, c *cluster.Cluster, name string, pods int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for i := range pods {
		group.Go(func() error {
			pod := &corev1.Pod{Spec: newJob(name, pods).Spec.Template.Spec}
			pod.Name, pod.Labels = fmt.Sprintf("%s-%d", name, i), map[string]string{batchv1.JobNameLabel: name}
			pod.Finalizers = []string{batchv1.JobTrackingFinalizer}
			_, err := c.Client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
	}
	return group.Wait()
}

// releaseBare takes the finalizers off so many pods, once they have ended.
func releaseBare(ctx context.Context, c *cluster.Cluster, ended <-chan string, pods int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for range pods {
		select {
		case name := <-ended:
			group.Go(func() error {
				patch := []byte(`[{"op":"remove","path":"/metadata/finalizers/0"}]`)
				_, err := c.Client.CoreV1().Pods(namespace).Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
				return err
			})
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), group.Wait())
		}
	}
	return group.Wait()
}
