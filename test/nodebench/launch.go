package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/test/benchrig"
)

const (
	// parallelism is how many pods of the Job of many run at a time.
	parallelism = 20
	// echoes is how many pods are created one after the other.
	echoes = 31
	// alone is how many containers an OCI runtime runs by itself.
	alone = 200
)

// launch measures each way of starting containers: a pod by itself, commands and
// logs in one, and a Job of many.
func (b *bench) launch(ctx context.Context) error {
	for _, l := range b.launchers {
		if l.apart {
			args := slices.Concat(b.args, []string{"-no-unified", "-only", "launchers", "-launcher", l.name})
			if err := benchrig.WithoutUnified(ctx, b.out, args...); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			continue
		}
		if err := b.alone(ctx, l); err != nil {
			return err
		}
		if err := b.With(ctx, func(r *benchrig.Run) error { return b.single(ctx, r, l) }, l.flags()...); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if err := b.many(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// alone measures an OCI runtime without errand, to compare the rest with.
func (b *bench) alone(ctx context.Context, l launcher) error {
	if l.runtime == "" {
		return nil
	}
	bare, err := b.Bare(ctx, l.runtime, alone)
	if err != nil {
		return err
	}
	b.row(l.name+" alone, without errand, network or seccomp", "", "containers/s", benchrig.Figures{bare.Rate})
	b.row("of that, CPU a container", "", "ms", benchrig.Figures{ms(bare.CPU)})
	return nil
}

// single measures one pod at a time.
func (b *bench) single(ctx context.Context, r *benchrig.Run, l launcher) error {
	client, err := r.Client()
	if err != nil {
		return err
	}
	var took benchrig.Figures
	for i := range echoes + 1 {
		d, err := echo(ctx, client, fmt.Sprintf("echo-%d", i))
		if err != nil {
			return err
		}
		if i > 0 { // the first pulls the image
			took = append(took, ms(d))
		}
	}
	b.row("echo pod, created → Succeeded seen by a watch: "+l.name, "60 ms", "ms", took)
	if err := b.execs(ctx, r, client, l); err != nil {
		return err
	}
	return b.logs(ctx, client, l)
}

// echo creates a pod that prints a line, and returns how long it took until a
// watch that was there before shows that it has succeeded.
func echo(ctx context.Context, client kubernetes.Interface, name string) (time.Duration, error) {
	pods := client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: benchrig.Pod("echo", "Hello, Job")}
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	err = awaitPod(w, v1.PodSucceeded)
	return time.Since(began), err
}

// awaitPod returns once a watch of one pod shows it in a phase.
func awaitPod(w watch.Interface, phase v1.PodPhase) error {
	for event := range w.ResultChan() {
		pod, ok := event.Object.(*v1.Pod)
		if !ok || event.Type == watch.Deleted {
			return fmt.Errorf("watch a pod: %s %v", event.Type, event.Object)
		}
		switch pod.Status.Phase {
		case phase:
			return nil
		case v1.PodFailed, v1.PodSucceeded:
			return fmt.Errorf("pod %s is %s: %s: %s", pod.Name, pod.Status.Phase, pod.Status.Reason, pod.Status.Message)
		}
	}
	return fmt.Errorf("the watch of a pod ended before it was %s", phase)
}

// many measures one Job of many echo pods.
func (b *bench) many(ctx context.Context, l launcher) error {
	var rates, machine, errand, shim, groups benchrig.Figures
	for range b.runs {
		err := b.With(ctx, func(r *benchrig.Run) error {
			s, err := benchrig.Many(ctx, r, b.pods, parallelism)
			rates = append(rates, s.Rate)
			machine = append(machine, ms(s.Machine))
			errand = append(errand, ms(s.Errand))
			shim = append(shim, ms(s.Shim))
			groups = append(groups, ms(s.Groups))
			return err
		}, l.flags()...)
		if err != nil {
			return err
		}
	}
	b.row(fmt.Sprintf("one Job of %d echo pods, parallelism %d: %s", b.pods, parallelism, l.name), l.goals.rate, "pods/s", rates)
	b.row("of that, CPU a pod: whole machine", l.goals.cpu, "ms", machine)
	b.row("errand", "", "ms", errand)
	b.row("errand-shim", "", "ms", shim)
	b.row("the container, and an OCI runtime that starts it", "", "ms", groups)
	return nil
}

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
