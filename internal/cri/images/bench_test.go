//go:build node

package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sync/errgroup"
)

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs fn b.N times, on so many goroutines, and reports processor time beside the time on the wall.
func measure(b *testing.B, workers int, fn func(i int) error) {
	b.Helper()
	var next atomic.Int64
	var eg errgroup.Group
	before := cpu(b)
	b.ResetTimer()
	for range workers {
		eg.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return nil
				}
				if err := fn(i); err != nil {
					return err
				}
			}
		})
	}
	must(b, eg.Wait())
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "wall-µs/op")
}

// benchStore is a store with busybox in it.
func benchStore(b *testing.B) (*Store, Image) {
	b.Helper()
	srv := startRegistry(b)
	push(b, srv, "library/busybox:latest", busybox)
	s := openStore(b, nodeConfig(b, srv, ""))
	img, err := s.Pull(context.Background(), "busybox", nil)
	must(b, err)
	return s, img
}

// Pulling and unpacking busybox from loopback, the image removed in between.
func BenchmarkNodePull(b *testing.B) {
	s, img := benchStore(b)
	ctx := context.Background()
	var pulling time.Duration
	var used time.Duration
	for range b.N {
		must(b, s.Remove(ctx, img.ID))
		c, t := cpu(b), time.Now()
		_, err := s.Pull(ctx, "busybox", nil)
		must(b, err)
		pulling += time.Since(t)
		used += cpu(b) - c
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(pulling.Microseconds())/float64(b.N), "wall-µs/op")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
}

// What imagePullPolicy Always costs when nothing is new. Server and client share the process.
func BenchmarkNodePullUnchanged(b *testing.B) {
	s, _ := benchStore(b)
	measure(b, 1, func(int) error {
		_, err := s.Pull(context.Background(), "busybox", nil)
		return err
	})
}

// rootfsCycle makes a container's root, mounts, unmounts and removes it.
func rootfsCycle(s *Store, img Image, dir string, mounted bool) func(int) error {
	return func(i int) error {
		ctx := context.Background()
		id := fmt.Sprintf("c%d", i)
		mounts, err := s.PrepareRootfs(ctx, id, img, RootOptions{})
		if err != nil {
			return err
		}
		if mounted {
			target := filepath.Join(dir, id)
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
			if err := mount.All(mounts, target); err != nil {
				return err
			}
			if err := mount.UnmountAll(target, 0); err != nil {
				return err
			}
		}
		return s.RemoveRootfs(ctx, id)
	}
}

func BenchmarkNodeRootfs(b *testing.B) {
	s, img := benchStore(b)
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("whole/%d", workers), func(b *testing.B) { measure(b, workers, rootfsCycle(s, img, b.TempDir(), true)) })
	}
	b.Run("unmounted/1", func(b *testing.B) { measure(b, 1, rootfsCycle(s, img, b.TempDir(), false)) })
}

// The same through containerd's snapshotter, for comparison: what rootfsKeeper is there to avoid.
func BenchmarkNodeRootfsSnapshotter(b *testing.B) {
	s, img := benchStore(b)
	ctx := s.context(context.Background())
	sn := s.db.Snapshotter(s.backend.name)
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("unmounted/%d", workers), func(b *testing.B) {
			measure(b, workers, func(i int) error {
				key := fmt.Sprintf("c%d", i)
				if _, err := sn.Prepare(ctx, key, img.ChainID, snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "x"})); err != nil {
					return err
				}
				return sn.Remove(ctx, key)
			})
			must(b, s.collect(ctx))
		})
	}
}

// rss is the resident memory of this process in KiB.
func rss(b *testing.B) float64 {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	must(b, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	must(b, err)
	return kib
}

// Opening a store that has busybox.
func BenchmarkNodeOpen(b *testing.B) {
	s, _ := benchStore(b)
	must(b, s.Close())
	before, c := rss(b), cpu(b)
	start := time.Now()
	s, err := New(context.Background(), s.cfg)
	must(b, err)
	took, used := time.Since(start), cpu(b)-c
	after := rss(b)
	must(b, s.Close())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took.Microseconds()), "wall-µs")
	b.ReportMetric(float64(used.Microseconds()), "cpu-µs")
	b.ReportMetric(after-before, "RSS-KiB")
}
