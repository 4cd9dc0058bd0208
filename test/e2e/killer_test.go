//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// victim is what a killer kills.
type victim string

const (
	victimServe   victim = "serve"   // errand serve, which is started again
	victimShim    victim = "shim"    // errand-shim, at any moment
	victimBoth    victim = "both"    // errand serve and errand-shim
	victimInit    victim = "init"    // a container's first process
	victimRuntime victim = "runtime" // an OCI runtime, or its child, in the middle of create
	victimLaunch  victim = "launch"  // errand-shim, in the middle of a container's start
)

var victims = []victim{victimServe, victimShim, victimBoth, victimInit, victimRuntime, victimLaunch}

// killer kills by SIGKILL what belongs to one errand, at random moments.
type killer struct {
	e       *errand
	random  *rand.Rand
	records string // the shim's directory of containers
	started *fsnotify.Watcher
	ready   bool // errand serve has been awaited

	done map[victim]int
	hits hits
}

// hits are the IDs of the containers whose first process was killed, and the UIDs
// of their pods.
type hits struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (h *hits) add(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids[id] = true
}

func (h *hits) has(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ids[id]
}

func newKiller(e *errand, random *rand.Rand) *killer {
	e.t.Helper()
	names, err := e.Names()
	if err != nil {
		e.t.Fatal(err)
	}
	k := &killer{e: e, random: random, records: filepath.Join(names.RuntimeDir, "containers"), ready: true, done: map[victim]int{}, hits: hits{ids: map[string]bool{}}}
	if k.started, err = fsnotify.NewWatcher(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { k.started.Close() })
	if err := k.started.Add(k.records); err != nil {
		e.t.Fatal(err)
	}
	return k
}

// kill kills one of these, or says that there was none.
func (k *killer) kill(v victim) bool {
	var killed bool
	switch v {
	case victimServe:
		killed = k.serve()
	case victimShim:
		killed = k.shim()
	case victimBoth:
		killed = k.shim() && k.serve()
	case victimInit:
		killed = k.init()
	case victimRuntime:
		killed = k.runtime()
	case victimLaunch:
		_, ok := k.start()
		killed = ok && k.shim()
	}
	if killed {
		k.done[v]++
	}
	return killed
}

// serve starts another errand serve at once. It is awaited more often than not:
// else the next to be killed may be one on its way.
func (k *killer) serve() bool {
	if err := k.e.Kill(); err != nil {
		k.e.t.Fatal(err)
	}
	k.e.launch()
	if k.ready = k.random.IntN(3) > 0; k.ready {
		k.e.awaitReady()
	}
	return true
}

// revive sees to it that the API is there.
func (k *killer) revive() {
	if !k.ready {
		k.e.awaitReady()
	}
	k.ready = true
}

func (k *killer) shim() bool {
	pid, err := k.e.ShimPID()
	return err == nil && unix.Kill(pid, unix.SIGKILL) == nil
}

// init kills the first process of a container that the shim says is running.
func (k *killer) init() bool {
	dirs, err := os.ReadDir(k.records)
	if err != nil {
		k.e.t.Fatal(err)
	}
	k.random.Shuffle(len(dirs), func(i, j int) { dirs[i], dirs[j] = dirs[j], dirs[i] })
	for _, d := range dirs {
		if pid, ok := k.running(d.Name()); ok && k.killIn(pid, d.Name()) {
			return true
		}
	}
	return false
}

// running returns the first process of a container that hasn't ended on record.
func (k *killer) running(id string) (pid int, ok bool) {
	if _, err := os.Stat(filepath.Join(k.records, id, "exit.json")); !errors.Is(err, fs.ErrNotExist) {
		return 0, false
	}
	var started struct{ Pid int }
	b, err := os.ReadFile(filepath.Join(k.records, id, "started.json"))
	return started.Pid, err == nil && json.Unmarshal(b, &started) == nil && started.Pid > 1
}

// killIn kills a process if it is the container's, whose ID its cgroup names.
func (k *killer) killIn(pid int, container string) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !bytes.Contains(b, []byte(container)) {
		return false
	}
	k.note(pid)
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// How long start waits for a container's start at most, and how far into it the
// kill comes at most.
const (
	startAwaited = 2 * time.Second
	startLasts   = 60 * time.Millisecond
)

// start waits for a container to be started, and on for a random time in which
// the start may be going on.
func (k *killer) start() (id string, ok bool) {
	for len(k.started.Events) > 0 {
		<-k.started.Events
	}
	giveUp := time.NewTimer(startAwaited)
	defer giveUp.Stop()
	for {
		select {
		case event := <-k.started.Events:
			if event.Has(fsnotify.Create) {
				moment := time.NewTimer(time.Duration(k.random.Int64N(int64(startLasts))))
				<-moment.C
				return filepath.Base(event.Name), true
			}
		case err := <-k.started.Errors:
			k.e.t.Fatal(err)
		case <-giveUp.C:
			return "", false
		}
	}
}

// runtime kills an OCI runtime or, of what that has started, any process that isn't the container's yet.
func (k *killer) runtime() bool {
	giveUp := time.Now().Add(startAwaited)
	for time.Now().Before(giveUp) {
		if _, ok := k.start(); !ok {
			return false
		}
		shim, err := k.e.ShimPID()
		if err != nil {
			continue
		}
		if found := runtimesBelow(shim); len(found) > 0 {
			pid := found[k.random.IntN(len(found))]
			// It may become the container's first process before the signal is there.
			k.note(pid)
			return unix.Kill(pid, unix.SIGKILL) == nil
		}
	}
	return false
}

// anyID is a container's ID or a pod's UID, as the names of errand's cgroups have them.
var anyID = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// note notes whose process is going to be hit.
func (k *killer) note(pid int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // nothing, if it has ended
	for _, id := range anyID.FindAllString(string(b), -1) {
		k.hits.add(id)
	}
}

// runtimesBelow finds runc's processes among a process's descendants.
func runtimesBelow(root int) []int {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	parents, isRuntime := map[int]int{}, map[int]bool{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		// proc(5): the name, in parentheses, then the state and the parent.
		name, rest, ok := strings.Cut(string(b[bytes.IndexByte(b, '(')+1:]), ") ")
		if fields := strings.Fields(rest); ok && len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(fields[1])
			isRuntime[pid] = strings.HasPrefix(name, "runc")
		}
	}
	var found []int
	for pid := range parents {
		if !isRuntime[pid] {
			continue
		}
		for p := pid; p > 1; p = parents[p] {
			if p == root {
				found = append(found, pid)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// proportions says how often each victim is killed, relative to the others.
type proportions map[victim]int

// parseProportions reads "serve=1,init=3": the others are spared.
func parseProportions(t *testing.T, s string) proportions {
	t.Helper()
	p := proportions{}
	for part := range strings.SplitSeq(s, ",") {
		name, n, _ := strings.Cut(part, "=")
		times, err := strconv.Atoi(n)
		if err != nil || times < 0 || !slices.Contains(victims, victim(name)) {
			t.Fatalf("%q: want victim=number, of the victims %v", part, victims)
		}
		p[victim(name)] = times
	}
	return p
}

// pick picks a victim.
func (p proportions) pick(random *rand.Rand) victim {
	total := 0
	for _, n := range p {
		total += n
	}
	at := random.IntN(total)
	for _, v := range victims {
		if at -= p[v]; at < 0 {
			return v
		}
	}
	panic("unreachable: the proportions' sum is their total")
}
