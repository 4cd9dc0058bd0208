//go:build node

package cri_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkPods runs pods of one echo container from RunPodSandbox to
// RemovePodSandbox, four at a time. It reports wall and CPU time a pod, the
// latter apart for this process and for the shim with the OCI runtime, and the
// wall time of each call.
//
// The pods of "users" have user namespaces of their own.
//
//	go test -tags node ./internal/cri -run xxx -bench Pods -benchtime 200x
func BenchmarkPods(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmarkPods(b, nil) })
	b.Run("users", func(b *testing.B) {
		ids := []*runtimeapi.IDMapping{{HostId: 65536, Length: 65536}}
		benchmarkPods(b, &runtimeapi.UserNamespace{Uids: ids, Gids: ids})
	})
}

func benchmarkPods(b *testing.B, users *runtimeapi.UserNamespace) {
	const workers = 4
	m := newMachine(b)
	l := m.start()
	defer l.destroy()
	l.run("warm", "true")
	ends := follow(b, l)
	shim := shimPid(b, m)
	var calls stopwatch
	own, theirs := ownCPU(b), shimCPU(b, shim)
	work := make(chan int)
	var all sync.WaitGroup
	b.ResetTimer()
	for range workers {
		all.Go(func() {
			for i := range work {
				if err := echoPod(l, fmt.Sprintf("p%d", i), users, ends, &calls); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	all.Wait()
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric((ownCPU(b)-own).Seconds()*1e3/n, "own-cpu-ms/pod")
	b.ReportMetric((shimCPU(b, shim)-theirs).Seconds()*1e3/n, "shim+runc-cpu-ms/pod")
	calls.report(b)
}

func echoPod(l *life, name string, users *runtimeapi.UserNamespace, ends *ender, calls *stopwatch) error {
	ctx := context.Background()
	config := l.pod(name)
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	var pod, id string
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"run-sandbox", func() (err error) { pod, err = l.RunPodSandbox(ctx, config, ""); return err }},
		{"create", func() (err error) {
			id, err = l.CreateContainer(ctx, pod, shell("c", "echo hello"), nil)
			return err
		}},
		{"start", func() error { return l.StartContainer(ctx, id) }},
		{"exit", func() error { return ends.wait(id) }},
		{"stop-sandbox", func() error { return l.StopPodSandbox(ctx, pod) }},
		{"remove-sandbox", func() error { return l.RemovePodSandbox(ctx, pod) }},
	} {
		began := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		calls.add(step.name, time.Since(began))
	}
	return nil
}

// ender tells of containers' ends.
type ender struct {
	mu    sync.Mutex
	ended map[string]chan struct{}
}

func (e *ender) of(id string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended[id] == nil {
		e.ended[id] = make(chan struct{})
	}
	return e.ended[id]
}

func (e *ender) wait(id string) error {
	select {
	case <-e.of(id):
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("container %s doesn't end", id)
	}
}

func follow(b *testing.B, l *life) *ender {
	e := &ender{ended: map[string]chan struct{}{}}
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	events, subscribed := make(chan *runtimeapi.ContainerEventResponse), make(chan struct{})
	go l.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) }) //nolint:errcheck // ends with ctx
	<-subscribed
	go func() {
		for {
			select {
			case ev := <-events:
				if ev.GetContainerEventType() == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
					close(e.of(ev.GetContainerId()))
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return e
}

type stopwatch struct {
	mu    sync.Mutex
	total map[string]time.Duration
}

func (s *stopwatch) add(name string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total == nil {
		s.total = map[string]time.Duration{}
	}
	s.total[name] += d
}

func (s *stopwatch) report(b *testing.B) {
	for name, d := range s.total {
		b.ReportMetric(d.Seconds()*1e3/float64(b.N), name+"-ms")
	}
}

func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// shimCPU is the shim's CPU time and that of all whom it has reaped: the OCI
// runtime's processes and the containers' own.
func shimCPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const ticksPerSecond = 100
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}
