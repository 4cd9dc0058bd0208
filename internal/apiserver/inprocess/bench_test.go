package inprocess_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/apiserver/inprocess/clienttest"
)

// The benchmarks compare both clients of one server. CPU is that of the whole process, so of client, server and etcd together:
//
//	go test ./internal/apiserver/inprocess -run '^$' -bench . -benchtime 3000x -count 7

// benchWriters is how many goroutines call at once: enough to hide the store's fsync.
const benchWriters = 16

// compare runs a benchmark through both clients, each in a namespace of its own.
func compare(b *testing.B, run func(b *testing.B, c kubernetes.Interface, ns string)) {
	s := server(b)
	for _, client := range s.underTest().Clients {
		b.Run(client.Name, func(b *testing.B) {
			ns, err := s.remote.CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			run(b, client.Interface, ns.Name)
			b.StopTimer()
			if err := s.client.CoreV1().Pods(ns.Name).DeleteCollection(context.Background(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// each calls op b.N times from many goroutines, with a number of its own each time, and reports what a call costs.
func each(b *testing.B, op func(i int) error) {
	var next atomic.Int64
	b.SetParallelism(benchWriters)
	start, cpu := time.Now(), cpuTime()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := op(int(next.Add(1) - 1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "ops/s")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// jobPod is a pod as the Job engine makes them.
func jobPod(name string) *corev1.Pod {
	p := clienttest.MakePod(name)
	p.Labels = map[string]string{"batch.kubernetes.io/controller-uid": "0d6ff6b4-6f0c-4f7e-8f8f-2f0d5c2f1d4e", "batch.kubernetes.io/job-name": "bench"}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "bench", UID: "0d6ff6b4-6f0c-4f7e-8f8f-2f0d5c2f1d4e"}}
	p.Spec.NodeName = "node"
	p.Spec.Containers[0].Command = []string{"echo", "Hello, Job"}
	p.Spec.Tolerations = []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}
	return p
}

func makeJobPods(b *testing.B, c kubernetes.Interface, ns string, n int) {
	b.Helper()
	for i := range n {
		if _, err := c.CoreV1().Pods(ns).Create(b.Context(), jobPod(fmt.Sprint("p", i)), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPodCreate(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		each(b, func(i int) error {
			_, err := c.CoreV1().Pods(ns).Create(b.Context(), jobPod(fmt.Sprint("p", i)), metav1.CreateOptions{})
			return err
		})
	})
}

// statusPatch is what a node agent sends when a container has started.
const statusPatch = `{"metadata":{"uid":%q},"status":{"phase":"Running","startTime":"2026-01-02T03:04:05Z","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],` +
	`"$setElementOrder/conditions":[{"type":"Ready"},{"type":"ContainersReady"}],` +
	`"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"},{"type":"ContainersReady","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"}],` +
	`"containerStatuses":[{"name":"main","image":"busybox","imageID":"sha256:1","ready":true,"restartCount":%d,"started":true,"state":{"running":{"startedAt":"2026-01-02T03:04:05Z"}}}]}}`

func BenchmarkStatusPatch(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		const pods = 64
		makeJobPods(b, c, ns, pods)
		var uids [pods]types.UID
		for i := range uids {
			p, err := c.CoreV1().Pods(ns).Get(b.Context(), fmt.Sprint("p", i), metav1.GetOptions{})
			if err != nil {
				b.Fatal(err)
			}
			uids[i] = p.UID
		}
		each(b, func(i int) error {
			_, err := c.CoreV1().Pods(ns).Patch(b.Context(), fmt.Sprint("p", i%pods), types.StrategicMergePatchType,
				fmt.Appendf(nil, statusPatch, uids[i%pods], i), metav1.PatchOptions{}, "status")
			return err
		})
	})
}

func BenchmarkStatusUpdate(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		pods := make([]*corev1.Pod, benchWriters*16)
		for i := range pods {
			var err error
			if pods[i], err = c.CoreV1().Pods(ns).Create(b.Context(), jobPod(fmt.Sprint("p", i)), metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
			pods[i].Status.Phase = corev1.PodRunning
		}
		each(b, func(i int) error {
			p := *pods[i%len(pods)]
			p.ResourceVersion, p.Status.Message = "", fmt.Sprint(i)
			_, err := c.CoreV1().Pods(ns).UpdateStatus(b.Context(), &p, metav1.UpdateOptions{})
			return err
		})
	})
}

func BenchmarkPodDelete(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		makeJobPods(b, server(b).client, ns, b.N)
		each(b, func(i int) error {
			return c.CoreV1().Pods(ns).Delete(b.Context(), fmt.Sprint("p", i), metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		})
	})
}

func BenchmarkPodGet(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		makeJobPods(b, c, ns, 1)
		each(b, func(int) error {
			_, err := c.CoreV1().Pods(ns).Get(b.Context(), "p0", metav1.GetOptions{})
			return err
		})
	})
}

// BenchmarkPodList lists 500 pods, as an informer that starts does.
func BenchmarkPodList(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		makeJobPods(b, server(b).client, ns, 500)
		each(b, func(int) error {
			_, err := c.CoreV1().Pods(ns).List(b.Context(), metav1.ListOptions{})
			return err
		})
	})
}

// BenchmarkWatch has 4 watchers receive each write of a pod's status. The writes go in-process for both.
func BenchmarkWatch(b *testing.B) {
	compare(b, func(b *testing.B, c kubernetes.Interface, ns string) {
		const watchers, pods = 4, 16
		writer := server(b).client.CoreV1().Pods(ns)
		makeJobPods(b, server(b).client, ns, pods)
		l, err := writer.List(b.Context(), metav1.ListOptions{})
		if err != nil {
			b.Fatal(err)
		}
		seen := make(chan struct{}, watchers*benchWriters)
		for range watchers {
			w, err := c.CoreV1().Pods(ns).Watch(b.Context(), metav1.ListOptions{ResourceVersion: l.ResourceVersion})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Stop()
			go func() {
				for ev := range w.ResultChan() {
					if ev.Type == watch.Modified {
						seen <- struct{}{}
					}
				}
			}()
		}
		each(b, func(i int) error {
			p := l.Items[i%pods]
			p.ResourceVersion, p.Status.Message = "", fmt.Sprint(i)
			if _, err := writer.UpdateStatus(b.Context(), &p, metav1.UpdateOptions{}); err != nil {
				return err
			}
			for range watchers {
				<-seen
			}
			return nil
		})
	})
}
