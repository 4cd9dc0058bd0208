package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/test/harness"
)

// sample is what an errand holds on to while no pod is there.
type sample struct {
	Pods int
	At   time.Duration
	// values are in the order of measures.
	values []float64
}

// measure is one of the columns.
type measure struct {
	name string
	// grows says how much of it may come between two looks far apart: a part of
	// the earlier one, and so much besides.
	part, besides float64
	// after is how long an errand may go on growing by its nature.
	after time.Duration
	// events says that it depends on how many events the API keeps for watchers.
	events bool
	take   func(*snapshot) (float64, error)
}

const mib = 1 << 20

// eventsGrow is no limit: the API's watch cache keeps the events of the last 75
// seconds, in rings that it doubles when that many don't fit, up to 102,400 of a
// kind. How many that are depends on how fast pods come, not on how many have.
const eventsGrow = 1e9

// measures in the order in which they are printed. Memory may grow by what the
// collector's moment makes of it; what is counted may not grow, but for what
// comes and goes by itself.
var measures = []measure{
	{name: "events", besides: eventsGrow, take: func(s *snapshot) (float64, error) { return s.metric("watch_cache_capacity", 1) }},
	{name: "errand MiB", part: 0.15, besides: 16, events: true, take: func(s *snapshot) (float64, error) { return memory(s.errand, "RssAnon") }},
	{name: "heap MiB", part: 0.2, besides: 12, events: true, take: func(s *snapshot) (float64, error) { return s.metric("go_memstats_heap_alloc_bytes", mib) }},
	{name: "goroutines", part: 0.02, besides: 20, take: func(s *snapshot) (float64, error) { return s.metric("go_goroutines", 1) }},
	{name: "fds", besides: 8, take: func(s *snapshot) (float64, error) { return descriptors(s.errand) }},
	{name: "shim MiB", part: 0.15, besides: 3, take: func(s *snapshot) (float64, error) { return memory(s.shim, "RssAnon") }},
	{name: "fds", besides: 2, take: func(s *snapshot) (float64, error) { return descriptors(s.shim) }},
	{name: "processes", take: func(s *snapshot) (float64, error) { return s.count("process") }},
	{name: "mounts", take: func(s *snapshot) (float64, error) { return s.count("mount of") }},
	{name: "links", take: func(s *snapshot) (float64, error) { return s.count("network interface") }},
	{name: "cgroups", take: func(s *snapshot) (float64, error) { return s.count("cgroup") }},
	{name: "nft", take: func(s *snapshot) (float64, error) { return s.count("nftables") }},
	{name: "files", take: func(s *snapshot) (float64, error) { return s.count("file") }},
	{name: "images MiB", besides: 1, take: func(s *snapshot) (float64, error) { return s.disk("images") }},
	{name: "cri", besides: 0.1, take: func(s *snapshot) (float64, error) { return s.disk("cri") }},
	{name: "pods", besides: 0.1, take: func(s *snapshot) (float64, error) { return s.disk("pods") }},
	{name: "logs", besides: 0.1, take: func(s *snapshot) (float64, error) { return s.disk("logs") }},
	{name: "etcd", part: 0.25, besides: 32, after: 15 * time.Minute, take: func(s *snapshot) (float64, error) { return s.disk("etcd") }},
	{name: "db", part: 0.25, besides: 8, after: 15 * time.Minute, take: func(s *snapshot) (float64, error) { return s.disk("etcd/member/snap/db") }},
}

// eye looks at an errand.
type eye struct {
	errand  *harness.Errand
	dataDir string
	client  kubernetes.Interface
	heap    string
	looks   int
	first   []string // the inventory at the first look
}

// snapshot is what several measures are taken from.
type snapshot struct {
	errand, shim int
	metrics      map[string]float64
	inventory    []string
	dataDir      string
}

func (e *eye) look(ctx context.Context) (sample, error) {
	s := &snapshot{errand: e.errand.PID(), dataDir: e.dataDir}
	names, err := instance.For(e.dataDir)
	if err != nil {
		return sample{}, err
	}
	if s.shim, err = e.errand.ShimPID(); err != nil {
		return sample{}, err
	}
	if err := e.profile(ctx); err != nil {
		return sample{}, err
	}
	if s.metrics, err = e.metrics(ctx); err != nil {
		return sample{}, err
	}
	// What the kernel takes down in the background is given its time.
	if s.inventory, err = leakcheck.Settled(names, e.dataDir, e.first); err != nil {
		return sample{}, err
	}
	if e.first == nil {
		e.first = s.inventory
	}
	var seen sample
	for _, m := range measures {
		value, err := m.take(s)
		if err != nil {
			return sample{}, fmt.Errorf("%s: %w", m.name, err)
		}
		seen.values = append(seen.values, value)
	}
	return seen, nil
}

// profile collects garbage, by asking for a heap profile, which it may keep.
func (e *eye) profile(ctx context.Context) error {
	e.looks++
	for name, parameter := range map[string][2]string{"heap": {"gc", "1"}, "goroutine": {"debug", "2"}} {
		b, err := e.client.CoreV1().RESTClient().Get().AbsPath("/debug/pprof/"+name).Param(parameter[0], parameter[1]).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("%s profile: %w", name, err)
		}
		if e.heap == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(e.heap, fmt.Sprintf("%s-%02d", name, e.looks)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// metrics are those of the API server's; what has labels is summed up.
func (e *eye) metrics(ctx context.Context) (map[string]float64, error) {
	b, err := e.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if e.heap != "" {
		if err := os.WriteFile(filepath.Join(e.heap, fmt.Sprintf("metrics-%02d", e.looks)), b, 0o644); err != nil {
			return nil, err
		}
	}
	found := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil && at > 0 && line[0] != '#' {
			name, _, _ := strings.Cut(line[:at], "{")
			found[name] += v
		}
	}
	return found, nil
}

func (s *snapshot) metric(name string, unit float64) (float64, error) {
	v, ok := s.metrics[name]
	if !ok {
		return 0, fmt.Errorf("errand has no metric %s", name)
	}
	return v / unit, nil
}

// count counts what of the inventory begins with that.
func (s *snapshot) count(what string) (float64, error) {
	n := 0
	for _, line := range s.inventory {
		if strings.HasPrefix(line, what) {
			n++
		}
	}
	return float64(n), nil
}

// disk is how many MiB the files in a part of the data directory take.
func (s *snapshot) disk(part string) (float64, error) {
	var blocks int64
	counted := map[uint64]bool{} // a file of several names takes its place once
	err := filepath.WalkDir(filepath.Join(s.dataDir, part), func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil // some file systems never make one smaller again
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !counted[st.Ino] {
			counted[st.Ino] = true
			blocks += st.Blocks
		}
		return nil
	})
	return float64(blocks) * 512 / mib, err
}

// memory reads one of a process's figures in MiB.
func memory(pid int, figure string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); name == figure {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, figure)
}

func descriptors(pid int) (float64, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return float64(len(fds)), err
}

func printHeader(out io.Writer) {
	fmt.Fprintf(out, "%7s %6s", "pods", "s")
	for _, m := range measures {
		fmt.Fprintf(out, " %10s", m.name)
	}
	fmt.Fprintln(out)
}

func (s sample) print(out io.Writer) {
	fmt.Fprintf(out, "%7d %6.0f", s.Pods, s.At.Seconds())
	for _, v := range s.values {
		fmt.Fprintf(out, " %10s", strconv.FormatFloat(v, 'g', 5, 64))
	}
	fmt.Fprintln(out)
}

// judge compares the last look with the one in the middle: by then all that
// fills up with use has filled up.
func judge(seen []sample) error {
	middle, last := seen[len(seen)/2], seen[len(seen)-1]
	if len(seen) == 2 {
		middle = seen[0]
	}
	var errs []error
	for i, m := range measures {
		if m.after > 0 && middle.At < m.after || m.events && last.values[0] > middle.values[0] {
			continue
		}
		if before, now := middle.values[i], last.values[i]; now > before*(1+m.part)+m.besides {
			errs = append(errs, fmt.Errorf("%s grew from %.5g after %d pods to %.5g after %d", m.name, before, middle.Pods, now, last.Pods))
		}
	}
	return errors.Join(errs...)
}
