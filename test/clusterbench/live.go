package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// starters is how many pods are said to be running at a time.
const starters = 32

// memory is what of a process is resident, in bytes.
type memory struct {
	// anonymous is the process's alone; file are pages of its program, which all processes of the program share, and which the kernel can
	// drop. most is the most there ever was of both.
	anonymous, file, most int64
}

func (m memory) String() string {
	return fmt.Sprintf("%d MB (%d + %d), at most %d MB", (m.anonymous+m.file)>>20, m.anonymous>>20, m.file>>20, m.most>>20)
}

func readMemory(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		to := map[string]*int64{"RssAnon:": &m.anonymous, "RssFile:": &m.file, "VmHWM:": &m.most}[f[0]]
		if to == nil {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("read /proc/%d/status: %w", pid, err)
		}
		*to = kb << 10
	}
	return m, nil
}

// measureMemory says how much memory each contender holds when idle, with the pods of a Job running, and once started anew beside them.
func measureMemory(ctx context.Context, c *cluster.Cluster, s settings, out, progress io.Writer) error {
	pods := s.live
	fmt.Fprintf(out, "\n| controller | RSS idle (anonymous + file) | with a Job of %d running pods | started beside them |\n|---|---|---|---|\n", pods)
	for _, who := range contenders {
		if who.slow || !s.only.MatchString(who.name) {
			continue // the slow one would take hours, and its memory is that of the one before
		}
		fmt.Fprintf(progress, "%s: one Job of %d pods that run\n", who.name, pods)
		row, err := memoryOf(ctx, c, pods, who)
		if err != nil {
			return fmt.Errorf("%s: %w", who.name, err)
		}
		fmt.Fprintln(out, row)
	}
	return nil
}

func memoryOf(ctx context.Context, c *cluster.Cluster, pods int, who contender) (row string, err error) {
	var idle, live, anew memory
	name := "live-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	err = during(ctx, c, who, func(ctx context.Context, p *cluster.Process) error {
		if _, err := runJob(ctx, c, 1); err != nil {
			return err
		}
		if idle, err = readMemory(p.PID()); err != nil {
			return err
		}
		if err := startPods(ctx, c, name, pods); err != nil {
			return err
		}
		live, err = readMemory(p.PID())
		return err
	})
	if err != nil {
		return "", err
	}
	err = during(ctx, c, who, func(ctx context.Context, p *cluster.Process) error {
		if _, err := runJob(ctx, c, 1); err != nil { // by then it knows all pods
			return err
		}
		if anew, err = readMemory(p.PID()); err != nil {
			return err
		}
		return endPods(ctx, c, name)
	})
	return fmt.Sprintf("| %s | %s | %s | %s |", who.name, idle, live, anew), err
}

// during does something while the contender runs. The context ends with that.
func during(ctx context.Context, c *cluster.Cluster, who contender, do func(context.Context, *cluster.Process) error) error {
	p, err := who.start(ctx, c)
	if err != nil {
		return err
	}
	alive, cancelAlive := context.WithCancelCause(ctx)
	defer cancelAlive(nil)
	go func() {
		if code, err := p.Ended(alive); err == nil {
			cancelAlive(fmt.Errorf("%s has ended with %d; it said:\n%s", p.Name, code, p.Said))
		}
	}()
	if err = do(alive, p); err != nil && alive.Err() != nil {
		err = errors.Join(err, context.Cause(alive))
	}
	stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(err, p.Stop(stopping))
}

// startPods makes a Job and says of each of its pods that it runs; it returns once the Job says so of all.
func startPods(ctx context.Context, c *cluster.Cluster, name string, n int) error {
	job := newJob(name, n)
	job.Spec.Parallelism = ptr.To(int32(n))
	if _, err := c.Client.BatchV1().Jobs(namespace).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return err
	}
	created, announced := make(chan string, n), make(chan error, 1)
	go func() { announced <- announce(ctx, c, name, n, created) }()
	err := each(ctx, created, func(ctx context.Context, pod string) error { return startPod(ctx, c, pod) })
	if err := errors.Join(err, <-announced); err != nil {
		return fmt.Errorf("have %d pods run: %w", n, err)
	}
	jobs := cache.NewListWatchFromClient(c.Client.BatchV1().RESTClient(), "jobs", namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	_, err = watchtools.UntilWithSync(ctx, jobs, &batchv1.Job{}, nil, func(ev watch.Event) (bool, error) {
		job, ok := ev.Object.(*batchv1.Job)
		return ok && ptr.Deref(job.Status.Ready, 0) == int32(n), nil
	})
	if err != nil {
		return fmt.Errorf("a Job of %d running pods: %w", n, err)
	}
	return nil
}

// announce sends the names of the Job's pods, once each, until there are n.
func announce(ctx context.Context, c *cluster.Cluster, job string, n int, names chan<- string) error {
	defer close(names)
	seen := map[string]bool{}
	_, err := watchtools.UntilWithSync(ctx, podsOf(c, job), &corev1.Pod{}, nil, func(ev watch.Event) (bool, error) {
		if pod, ok := ev.Object.(*corev1.Pod); ok && !seen[pod.Name] {
			seen[pod.Name] = true
			names <- pod.Name
		}
		return len(seen) == n, nil
	})
	return err
}

// each does something to each pod, some at a time.
func each(ctx context.Context, pods <-chan string, do func(context.Context, string) error) error {
	var g errgroup.Group
	for range starters {
		g.Go(func() error {
			for pod := range pods {
				if err := do(ctx, pod); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func podsOf(c *cluster.Cluster, job string) cache.ListerWatcher {
	return cache.NewFilteredListWatchFromClient(c.Client.CoreV1().RESTClient(), "pods", namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = labels.SelectorFromSet(labels.Set{batchv1.JobNameLabel: job}).String()
	})
}

// startPod says of a pod what a node says of one that runs.
func startPod(ctx context.Context, c *cluster.Cluster, name string) error {
	now := metav1.Now()
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, HostIP: "192.0.2.1", PodIP: "192.0.2.2", PodIPs: []corev1.PodIP{{IP: "192.0.2.2"}}}
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "busybox", ImageID: "busybox", Ready: true, Started: ptr.To(true),
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = c.Client.CoreV1().Pods(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// endPods deletes the Job, then its pods, and returns once they are gone.
func endPods(ctx context.Context, c *cluster.Cluster, name string) error {
	alone := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	if err := c.Client.BatchV1().Jobs(namespace).Delete(ctx, name, alone); err != nil {
		return err
	}
	of := metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name}
	list, err := c.Client.CoreV1().Pods(namespace).List(ctx, of)
	if err != nil {
		return err
	}
	names := make(chan string, len(list.Items))
	for i := range list.Items {
		names <- list.Items[i].Name
	}
	close(names)
	if err := each(ctx, names, func(ctx context.Context, pod string) error {
		return c.Client.CoreV1().Pods(namespace).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	}); err != nil {
		return err
	}
	var store cache.Store
	gone := func(s cache.Store) (bool, error) { store = s; return len(s.List()) == 0, nil }
	_, err = watchtools.UntilWithSync(ctx, podsOf(c, name), &corev1.Pod{}, gone, func(watch.Event) (bool, error) { return len(store.List()) == 0, nil })
	return err
}
