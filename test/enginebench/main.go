// Command enginebench measures the Job engine against errand's own API server, both in one process, with etcd's fsync on: how long Jobs take whose
// pods end at once, and what they cost. No container runs: a loop says of each new pod that it has succeeded. It measures, it doesn't judge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "enginebench:", err)
		os.Exit(1)
	}
}

// load is a number of equal Jobs, created at once.
type load struct {
	jobs, completions, parallelism int
	mode                           batchv1.CompletionMode
	goal                           string
}

func (l load) pods() int { return l.jobs * l.completions }

func (l load) String() string {
	return fmt.Sprintf("%d %s × %d pods, parallelism %d", l.jobs, l.mode, l.completions, l.parallelism)
}

func loads(largest int) []load {
	all := []load{
		{1, 10, 10, batchv1.NonIndexedCompletion, "100 ms"},
		{1000, 1, 1, batchv1.NonIndexedCompletion, "5 s"},
	}
	for _, mode := range []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion} {
		for _, n := range []int{1_000, 10_000, 100_000} {
			all = append(all, load{1, n, min(n, 500), mode, "600 pods/s"})
		}
	}
	return slices.DeleteFunc(all, func(l load) bool { return l.pods() > largest })
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("enginebench", flag.ContinueOnError)
	largest := flags.Int("largest", 100_000, "pods of the largest `load`")
	profile := flags.String("cpuprofile", "", "`file` to write a CPU profile to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard())
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Fprintf(out, "| load | goal | time | pods/s | CPU a pod | RSS before | RSS after |\n|---|---|---|---|---|---|---|\n")
	for _, l := range loads(*largest) {
		if err := measure(ctx, out, l); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

// measure runs a load on a server of its own.
func measure(ctx context.Context, out io.Writer, l load) (err error) {
	r, err := startRig(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	rss, err := resident()
	if err != nil {
		return err
	}
	cpu, began := cpuTime(), time.Now()
	if err := r.runJobs(ctx, l); err != nil {
		return err
	}
	took := time.Since(began)
	cpu = cpuTime() - cpu
	after, err := resident()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "| %s | %s | %s | %.0f | %d µs | %d MB | %d MB |\n", l, l.goal, took.Round(time.Millisecond),
		float64(l.pods())/took.Seconds(), cpu.Microseconds()/int64(l.pods()), rss>>20, after>>20)
	return nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it takes no argument that could be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the process's resident memory in bytes.
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
