package images

import (
	"fmt"
	"io/fs"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"
)

type registryRequest = http.Request

// waitFor returns once ok does, which another goroutine makes true.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		runtime.Gosched()
	}
}

// waiters counts the callers of all flights. The group is locked.
func waiters(g *flightGroup) int {
	n := 0
	for _, f := range g.flights {
		n += f.waiters
	}
	return n
}

// links is how many names a file has.
func links(info fs.FileInfo) string {
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Nlink)
}

// waiting is how many interrupted pulls can be gone on with.
func (p *parkingLot) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.spots)
}
