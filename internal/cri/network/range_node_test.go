//go:build node

package network

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Errands that start at the same moment have ranges of their own.
func TestRangesChosenAtOnce(t *testing.T) {
	h := newHost(t)
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const n = 8
	var (
		mu    sync.Mutex
		taken = map[netip.Prefix]int{}
		begin = make(chan struct{})
		done  sync.WaitGroup
	)
	managers := make([]*Manager, n)
	for i := range n {
		cfg := h.cfg
		cfg.Bridge, cfg.Table, cfg.StateDir = fmt.Sprintf("%s%d", cfg.Bridge, i), fmt.Sprintf("%s%d", cfg.Table, i), t.TempDir()
		ready := make(chan struct{})
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread() // in the host's namespace, and ends with it
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				close(ready)
				return
			}
			close(ready)
			<-begin
			m, err := New(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			managers[i] = m
			taken[m.CIDR()]++
		}()
		<-ready
	}
	close(begin)
	done.Wait()
	for cidr, errands := range taken {
		if errands > 1 {
			t.Errorf("%d errands have %s", errands, cidr)
		}
	}
	for _, m := range managers {
		if m == nil {
			continue
		}
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
	}
}
