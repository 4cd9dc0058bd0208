package keptlogs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// world is an API with Jobs, a disk and a clock, on which Keepers live and die.
type world struct {
	t      *testing.T
	clock  *clocktesting.FakeClock
	client *fake.Clientset
	logs   string // where the runtime writes
	dir    string
}

func newWorld(t *testing.T, jobs ...string) *world {
	dir := t.TempDir()
	w := &world{t: t, clock: clocktesting.NewFakeClock(noon), client: fake.NewClientset(), logs: filepath.Join(dir, "pods"), dir: filepath.Join(dir, "kept")}
	for _, name := range jobs {
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}}
		if _, err := w.client.BatchV1().Jobs("ns").Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// start starts a Keeper, and waits until it knows all Jobs.
func (w *world) start(maxSize int64) (k *Keeper, stop func()) {
	w.t.Helper()
	_, ctx := ktesting.NewTestContext(w.t)
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactory(w.client, 0)
	k, err := New(Config{Dir: w.dir, MaxSize: maxSize, MaxRuns: 5, Jobs: factory.Batch().V1().Jobs(), Clock: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	factory.Start(ctx.Done())
	w.until("the Keeper to know the Jobs", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.synced
	})
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		done <- nil
		factory.Shutdown()
	}
	w.t.Cleanup(stop)
	return k, stop
}

// until waits for what no channel tells of.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// keep writes the log of a run and has it kept, a second after the one before.
func (w *world) keep(k *Keeper, r Run, text string) {
	w.t.Helper()
	w.clock.Step(time.Second)
	if err := k.Keep(w.t.Context(), r, w.write(r, "", text)); err != nil {
		w.t.Fatal(err)
	}
}

// write writes a file of a run's log, and returns the log's path.
func (w *world) write(r Run, suffix, text string) (log string) {
	w.t.Helper()
	return w.writeFor(w.t, r, suffix, text)
}

func (w *world) writeFor(t testing.TB, r Run, suffix, text string) (log string) {
	t.Helper()
	log = filepath.Join(w.logs, string(r.PodUID), r.Container, fmt.Sprintf("%d.log", r.RestartCount))
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log+suffix, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return log
}

func run(job, pod string, n int32) Run {
	return Run{
		Namespace: "ns", JobName: job, JobUID: types.UID("uid-" + job), PodName: pod, PodUID: types.UID("uid-" + pod),
		Container: "main", RestartCount: n, Ended: &End{ExitCode: 7, Reason: "Error"}, StartedAt: noon, FinishedAt: noon,
	}
}

// names are the pods and numbers of the runs that are kept of a Job.
func names(t *testing.T, k *Keeper, job string) string {
	t.Helper()
	runs, err := k.Runs(t.Context(), "ns", job)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range runs {
		names = append(names, fmt.Sprint(r.PodName, r.RestartCount))
	}
	return strings.Join(names, " ")
}

func read(t *testing.T, k *Keeper, pod string, n int32) string {
	t.Helper()
	log, err := k.Open(t.Context(), "ns", types.UID("uid-"+pod), "main", n)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// files lists the Keeper's directory.
func (w *world) files() string {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// What is kept is there when its pod's files are gone, for the next Keeper too, and is
// the owner's alone.
func TestKept(t *testing.T) {
	w := newWorld(t, "j")
	k, stop := w.start(1 << 20)
	w.keep(k, run("j", "a", 0), "first\n")
	w.keep(k, run("j", "a", 1), "second\n")
	w.keep(k, run("j", "a", 1), "not again\n")
	w.keep(k, run("other", "b", 0), "another's\n")
	if err := os.RemoveAll(w.logs); err != nil {
		t.Fatal(err)
	}
	for _, life := range []string{"the first", "the next"} {
		if got := names(t, k, "j"); got != "a0 a1" {
			t.Errorf("%s keeps %q", life, got)
		}
		if got := read(t, k, "a", 0); got != "first\n" {
			t.Errorf("%s reads %q", life, got)
		}
		stop()
		k, stop = w.start(1 << 20)
	}
	runs, err := k.Runs(t.Context(), "ns", "j")
	if err != nil {
		t.Fatal(err)
	}
	want := run("j", "a", 0)
	want.KeptAt, want.Size, want.Files = noon.Add(time.Second), 2*block, []string{""}
	if diff := cmp.Diff(want, runs[0]); diff != "" {
		t.Errorf("the record (-want +got):\n%s", diff)
	}
	for _, file := range strings.Fields(w.files()) {
		info, err := os.Stat(filepath.Join(w.dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v", file, info.Mode(), err)
		}
	}
	for _, open := range []struct {
		namespace string
		n         int32
	}{{"ns", 2}, {"elsewhere", 0}} {
		if _, err := k.Open(t.Context(), open.namespace, "uid-a", "main", open.n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("run %d in namespace %s: %v, want that it isn't there", open.n, open.namespace, err)
		}
	}
}

// A rotated log is kept as a whole, and read in the order in which it was written.
func TestRotatedLog(t *testing.T) {
	w := newWorld(t, "j")
	k, _ := w.start(1 << 20)
	r := run("j", "a", 0)
	var zipped strings.Builder
	z := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(z, "one\n"); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w.write(r, ".20260701-120000.gz", zipped.String())
	w.write(r, ".20260701-120000.000001", "two\n")
	w.write(r, ".20260701-120000.000001.gz", "compressed by halves")
	w.write(r, ".20260701-120001.gz.tmp", "not a file of the log")
	w.write(run("j", "a", 10), "", "another run's\n")
	w.keep(k, r, "three\n")
	if got := read(t, k, "a", 0); got != "one\ntwo\nthree\n" {
		t.Errorf("read %q", got)
	}
	runs, err := k.Runs(t.Context(), "ns", "j")
	if err != nil || len(runs) != 1 || runs[0].Size != 4*block {
		t.Errorf("kept are %+v, %v", runs, err)
	}
}

func TestMaxSize(t *testing.T) {
	for name, tc := range map[string]struct {
		max, sizes []int64 // in blocks, a record not counted
		want       string
	}{
		"all fit":                    {[]int64{6}, []int64{1, 1, 1}, "a0 a1 a2"},
		"the oldest goes":            {[]int64{5}, []int64{1, 1, 1}, "a1 a2"},
		"a large one drives out two": {[]int64{6}, []int64{1, 1, 4}, "a2"},
		"one too large takes none":   {[]int64{6}, []int64{1, 1, 6}, "a0 a1"},
		"more than there may be":     {[]int64{100}, []int64{1, 1, 1, 1, 1, 1, 1}, "a2 a3 a4 a5 a6"},
		"none is kept":               {[]int64{0}, []int64{1}, ""},
		"less than before":           {[]int64{6, 2}, []int64{1, 1, 1}, "a2"},
		"none any more":              {[]int64{6, 0}, []int64{1, 1, 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "j")
			k, stop := w.start(tc.max[0] * block)
			for i, size := range tc.sizes {
				w.keep(k, run("j", "a", int32(i)), strings.Repeat("x", int(size*block)))
			}
			for _, max := range tc.max[1:] {
				stop()
				k, stop = w.start(max * block)
			}
			if got := names(t, k, "j"); got != tc.want {
				t.Errorf("kept are %q, want %q", got, tc.want)
			}
			if left, want := len(strings.Fields(w.files())), 2*len(strings.Fields(tc.want)); left != want {
				t.Errorf("there are %d files, want %d: %s", left, want, w.files())
			}
		})
	}
}

// What is kept of a Job goes an hour after it.
func TestJobGone(t *testing.T) {
	del := func(w *world) {
		if err := w.client.BatchV1().Jobs("ns").Delete(w.t.Context(), "j", metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	gone := func(w *world, k *Keeper) func() bool {
		return func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return !k.gone["uid-j"].IsZero() && w.clock.HasWaiters()
		}
	}
	for name, tc := range map[string]struct {
		// do has the Job go, and returns the Keeper that is there then.
		do func(w *world, k *Keeper, stop func()) *Keeper
	}{
		"while it is watched": {func(w *world, k *Keeper, _ func()) *Keeper {
			del(w)
			return k
		}},
		"while nobody watches": {func(w *world, _ *Keeper, stop func()) *Keeper {
			stop()
			del(w)
			w.clock.Step(24 * time.Hour)
			k, _ := w.start(1 << 20)
			return k
		}},
		"a restart doesn't begin the hour anew": {func(w *world, k *Keeper, stop func()) *Keeper {
			del(w)
			w.until("the Job to be missed", gone(w, k))
			w.clock.Step(Grace / 2)
			stop()
			k, _ = w.start(1 << 20)
			w.clock.Step(-Grace / 2)
			return k
		}},
		"before its pod": {func(w *world, k *Keeper, _ func()) *Keeper {
			del(w)
			w.until("the Job to be missed", gone(w, k))
			w.clock.Step(Grace / 2)
			w.keep(k, run("j", "a", 1), "late\n")
			return k
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "j", "stays")
			k, stop := w.start(1 << 20)
			w.keep(k, run("j", "a", 0), "one\n")
			w.keep(k, run("stays", "b", 0), "one\n")
			k = tc.do(w, k, stop)
			w.until("the Job to be missed", gone(w, k))
			w.clock.Step(Grace - time.Millisecond)
			if got := names(t, k, "j"); !strings.HasPrefix(got, "a0") {
				t.Errorf("within its grace %q is kept", got)
			}
			w.until("the next look", w.clock.HasWaiters)
			w.clock.Step(time.Millisecond)
			w.until("what is kept to go", func() bool { return names(t, k, "j") == "" })
			if got := names(t, k, "stays"); got != "b0" {
				t.Errorf("of another Job %q is kept", got)
			}
			if got := w.files(); got != "uid-b_main_0.json uid-b_main_0.log" {
				t.Errorf("on disk there is %s", got)
			}
		})
	}
}

// What a crash leaves at any step of keeping and of removing is not kept, and goes;
// what was kept stays.
func TestLeftovers(t *testing.T) {
	const name = "uid-c_main_0"
	for what, files := range map[string]map[string]string{
		"a log without a record":      {name + ".log": "x"},
		"a rotated log without one":   {name + ".log.20260701-120000.gz": "x"},
		"a record half written":       {name + ".log": "x", name + ".json.tmp": `{"names`},
		"an empty record":             {name + ".log": "x", name + ".json": ""},
		"a record without its log":    {name + ".json": `{"podUID":"uid-c","container":"main","files":[""]}`},
		"a record of another run":     {name + ".log": "x", name + ".json": `{"podUID":"uid-d","container":"main","files":[""]}`},
		"when a Job went, and no run": {"uid-gone.gone": "2026-07-01T12:00:00Z"},
		"when a Job went, cut off":    {"uid-j.gone": ""},
		"that, half written":          {"uid-j.gone.tmp": "2026"},
		"what isn't errand's":         {"core": "x"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, "j")
			k, stop := w.start(1 << 20)
			w.keep(k, run("j", "a", 0), "whole\n")
			stop()
			before := w.files()
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(w.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			k, _ = w.start(1 << 20)
			if got := w.files(); got != before {
				t.Errorf("on disk there is %s, want %s", got, before)
			}
			if got := read(t, k, "a", 0); got != "whole\n" {
				t.Errorf("what was kept reads %q", got)
			}
			// And what was lost can be kept.
			w.keep(k, run("j", "c", 0), "again\n")
			if got := read(t, k, "c", 0); got != "again\n" {
				t.Errorf("kept again, it reads %q", got)
			}
		})
	}
}

// A link that somebody put where a log should be is not followed.
func TestNotALog(t *testing.T) {
	w := newWorld(t, "j")
	k, _ := w.start(1 << 20)
	r := run("j", "a", 0)
	log := w.write(r, "", "")
	if err := errors.Join(os.Remove(log), os.Symlink("/etc/passwd", log)); err != nil {
		t.Fatal(err)
	}
	if err := k.Keep(t.Context(), r, log); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("keeping a link: %v", err)
	}
	if got := names(t, k, "j") + w.files(); got != "" {
		t.Errorf("left is %s", got)
	}
}

func TestDropAll(t *testing.T) {
	w := newWorld(t, "j")
	k, _ := w.start(1 << 20)
	w.keep(k, run("j", "a", 0), "one\n")
	w.keep(k, run("gone", "b", 0), "one\n")
	if err := k.DropAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, k, "j") + w.files(); got != "" {
		t.Errorf("left is %s", got)
	}
}

// Where the directory has gone, nothing can be kept; nobody waits for it.
func TestDirectoryGone(t *testing.T) {
	w := newWorld(t, "j")
	k, _ := w.start(1 << 20)
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	r := run("j", "p", 0)
	log := w.write(r, "", "text")
	done := make(chan error, 1)
	go func() { done <- k.Keep(t.Context(), r, log) }()
	select {
	case err := <-done:
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on for ever")
	}
}

// A run that is to be kept by several at once is kept once: what it takes is counted
// once, and no call of them removes what another has kept.
func TestOneRunByManyAtOnce(t *testing.T) {
	w := newWorld(t, "j")
	k, _ := w.start(1 << 20)
	for i := range 5 {
		r := run("j", fmt.Sprint("p", i), 0)
		log := w.write(r, "", "a line\n")
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				if err := k.Keep(t.Context(), r, log); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	}
	if got, want := names(t, k, "j"), "p00 p10 p20 p30 p40"; got != want {
		t.Errorf("kept %q, want %q", got, want)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if want := int64(5 * 2 * block); k.size != want {
		t.Errorf("%d bytes are counted, want %d", k.size, want)
	}
}
