//go:build node

package oci_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
)

// BenchmarkRun is a container's whole life, Run to Delete, at several containers at once. CPU is that of the shim, the OCI
// runtime and the container (by their cgroup), and of this process.
func BenchmarkRun(b *testing.B) {
	for _, native := range []bool{false, true} {
		for _, concurrency := range []int{1, 4} {
			b.Run(fmt.Sprintf("native=%v/concurrency=%d", native, concurrency), func(b *testing.B) { benchmarkRun(b, native, concurrency) })
		}
	}
}

func benchmarkRun(b *testing.B, native bool, concurrency int) {
	{
		{
			h := ocitest.NewHost(b)
			cfg := config(b, h)
			cfg.Native = native
			c := connectTo(b, h, cfg)
			e := newExits(b, c)
			bundles := make([]string, b.N)
			for i := range b.N {
				bundles[i] = h.Bundle(fmt.Sprint("b", i), []string{"echo", "hello"})
			}
			var wg sync.WaitGroup
			slots := make(chan struct{}, concurrency)
			cpu, own := cgroupCPU(b, h), ownCPU(b)
			b.ResetTimer()
			for i := range b.N {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					id := fmt.Sprint("b", i)
					if _, err := c.Run(b.Context(), oci.RunRequest{ID: id, Bundle: bundles[i], LogPath: h.Log(id)}); err != nil {
						b.Error(err)
						return
					}
					e.wait(id)
					if err := c.Delete(b.Context(), id); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(ms(cgroupCPU(b, h)-cpu)/float64(b.N), "cpu-ms/op")
			b.ReportMetric(ms(ownCPU(b)-own)/float64(b.N), "client-cpu-ms/op")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
			b.ReportMetric(0, "ns/op")
		}
	}
}

// BenchmarkShimMemory is the shim's resident memory with that many idle containers.
func BenchmarkShimMemory(b *testing.B) {
	for _, n := range []int{0, 100, 500} {
		b.Run(fmt.Sprint("containers=", n), func(b *testing.B) {
			h := ocitest.NewHost(b)
			c := connect(b, h)
			var wg sync.WaitGroup
			slots := make(chan struct{}, 4)
			for i := range n {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					id := fmt.Sprint("m", i)
					if _, err := c.Run(b.Context(), oci.RunRequest{ID: id, Bundle: h.Bundle(id, []string{"sleep", "1000"}), LogPath: h.Log(id)}); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			for b.Loop() {
				if _, err := c.List(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			pid := shimPid(b, h)
			b.ReportMetric(procStatus(b, pid, "VmRSS")/1024, "rss-MiB")
			b.ReportMetric(procStatus(b, pid, "RssAnon")/1024, "anon-MiB")
			b.ReportMetric(procStatus(b, pid, "Threads"), "threads")
			b.ReportMetric(0, "ns/op")
			deleteAll(b, c)
		})
	}
}

// BenchmarkLog is the throughput of one container's output into its log.
func BenchmarkLog(b *testing.B) {
	const total = 256 << 20
	for _, line := range []int{80, 4000} {
		b.Run(fmt.Sprint("line=", line), func(b *testing.B) {
			h := ocitest.NewHost(b)
			c := connect(b, h)
			e := newExits(b, c)
			script := fmt.Sprintf("yes %s | head -c %d", strings.Repeat("x", line-1), total)
			b.SetBytes(total)
			for i := 0; b.Loop(); i++ {
				id := fmt.Sprint("l", i)
				if _, err := c.Run(b.Context(), oci.RunRequest{ID: id, Bundle: h.Bundle(id, []string{"sh", "-c", script}), LogPath: h.Log(id)}); err != nil {
					b.Fatal(err)
				}
				e.wait(id)
				if err := c.Delete(b.Context(), id); err != nil {
					b.Fatal(err)
				}
				os.Remove(h.Log(id))
			}
			b.ReportMetric(procStatus(b, shimPid(b, h), "VmHWM")/1024, "peak-rss-MiB")
		})
	}
}

// BenchmarkStart is the time from executing errand-shim to its answer.
func BenchmarkStart(b *testing.B) {
	h := ocitest.NewHost(b)
	for b.Loop() {
		c, err := oci.Connect(b.Context(), config(b, h))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Drain(b.Context(), true); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// exits hands out exit events.
type exits struct {
	mu      sync.Mutex
	waiters map[string]chan struct{}
}

func newExits(b *testing.B, c *oci.Client) *exits {
	events, err := c.Events(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	e := &exits{waiters: map[string]chan struct{}{}}
	go func() {
		for ev := range events {
			close(e.waiter(ev.ID))
		}
	}()
	return e
}

func (e *exits) waiter(id string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiters[id] == nil {
		e.waiters[id] = make(chan struct{})
	}
	return e.waiters[id]
}

func (e *exits) wait(id string) { <-e.waiter(id) }

func cgroupCPU(b *testing.B, h *ocitest.Host) time.Duration {
	b.Helper()
	if data, err := os.ReadFile("/sys/fs/cgroup/cpuacct" + h.CgroupParent + "/cpuacct.usage"); err == nil {
		n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return time.Duration(n)
	}
	data, err := os.ReadFile("/sys/fs/cgroup" + h.CgroupParent + "/cpu.stat")
	if err != nil {
		return 0 // the shim hasn't made it yet
	}
	var usec int64
	fmt.Sscanf(string(data), "usage_usec %d", &usec)
	return time.Duration(usec) * time.Microsecond
}

func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func procStatus(b *testing.B, pid int, field string) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return n
		}
	}
	b.Fatalf("no %s", field)
	return 0
}
