package jobs

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkDecide measures one decision in a Job of many live pods of which one has ended: it must not depend on their number.
func BenchmarkDecide(b *testing.B) {
	for _, live := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			s := benchState(live)
			s.applyPod(benchPod(live, "3").succeeded().obj(), fromInformer, epoch)
			b.ReportAllocs()
			for b.Loop() {
				if p := decide(s.job, s.view(epoch), epoch, testLimits); len(p.Release) != 1 || p.Status == nil {
					b.Fatalf("%+v", p)
				}
			}
		})
	}
}

// BenchmarkPodEvent measures what it costs to learn of a pod's end, and of its release, in a Job of many live pods.
func BenchmarkPodEvent(b *testing.B) {
	for _, live := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			s := benchState(live)
			done, released := benchPod(live, "3").succeeded().obj(), benchPod(live, "4").succeeded().released().obj()
			b.ReportAllocs()
			for b.Loop() {
				s.applyPod(done, fromInformer, epoch)
				s.applyPod(released, fromOwnWrite, epoch)
				s.applyPod(released, fromInformer, epoch)
			}
		})
	}
}

// benchState is the state of a Job with so many running pods.
func benchState(live int) *jobState {
	job := makeJob("job").stored().completions(1 << 30).parallelism(int32(live)).started(epoch).obj()
	job.Status.Active = int32(live)
	s := newJobState(job.UID, job.Namespace, job.Name)
	s.applyJob(job, fromInformer)
	for i := range live {
		s.applyPod(benchPod(i, "2").running().obj(), fromInformer, epoch)
	}
	return s
}

func benchPod(i int, version string) *podBuilder {
	return makePod("pod-" + strconv.Itoa(i)).version(version)
}

// BenchmarkEngine measures the CPU that a pod costs from creation to its Job's end: informers, queue, decisions and requests, on an API in memory
// without validation. What the fake API itself needs is measured by BenchmarkFakeAPI and has to be taken off.
func BenchmarkEngine(b *testing.B) {
	for _, tc := range []struct {
		size    int
		indexed bool
	}{{1_000, false}, {10_000, false}, {100_000, false}, {1_000, true}, {10_000, true}, {100_000, true}} {
		size, want := tc.size, makeJob("job").completions(int32(tc.size)).parallelism(500)
		if tc.indexed {
			want.indexed(int32(size))
		}
		b.Run(fmt.Sprintf("%s/completions=%d", completionMode(want.obj()), size), func(b *testing.B) {
			cpu := time.Duration(0)
			for b.Loop() {
				rig := newRig(b, nil, func(*corev1.Pod) (time.Duration, corev1.PodPhase) { return 0, corev1.PodSucceeded })
				rig.api.trusted = true
				<-rig.controller.Ready()
				done := make(chan struct{})
				rig.api.mu.Lock()
				wrote := rig.api.wrote
				rig.api.wrote = func(old, obj any) {
					wrote(old, obj)
					if job, ok := obj.(*batchv1.Job); ok && isFinished(job) {
						close(done)
					}
				}
				rig.api.mu.Unlock()
				before := cpuTime()
				rig.api.createJob(want.obj())
				<-done
				cpu += cpuTime() - before
				rig.stop()
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N)/float64(size), "cpu-µs/pod")
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// BenchmarkFakeAPI measures what a pod costs the fake API: a creation, an end and a release, without anybody watching.
func BenchmarkFakeAPI(b *testing.B) {
	w := newWorld(b)
	w.api.trusted = true
	job := makeJob("job").stored().obj()
	before, i := cpuTime(), int64(0)
	names := namesFor(job)
	for b.Loop() {
		pod, err := w.api.createPod(newPod(job, names.at(i), creation{Slot: i}))
		if err != nil {
			b.Fatal(err)
		}
		w.api.finish(pod, corev1.PodSucceeded)
		if _, err := w.api.patchPod("default", pod.Name, types.JSONPatchType, releasePatch(refOf(pod), false)); err != nil {
			b.Fatal(err)
		}
		delete(w.api.pods, key("default", pod.Name))
		w.api.log = w.api.log[:0]
		i++
	}
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/pod")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
