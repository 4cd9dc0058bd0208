// Command enginebench measures the Job engine against errand's own API server, both in one process, with etcd's fsync on: how long Jobs take whose
// pods end at once, and what they cost. No container runs: a loop says of each new pod that it has succeeded, and of more than 12,500 that have ended
// the oldest are deleted, as in errand serve.
// Each series of loads has a process and a server of its own. It measures, it doesn't judge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
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

// series are loads of which each follows the other on the same server.
type series struct {
	name  string
	loads []load
}

func allSeries() []series {
	const nonIndexed, indexed = batchv1.NonIndexedCompletion, batchv1.IndexedCompletion
	one := func(n int, mode batchv1.CompletionMode) load { return load{1, n, min(n, 500), mode, "600 pods/s"} }
	return []series{
		{"small", []load{{1, 10, 10, nonIndexed, "100 ms"}}},
		{"many", []load{{1000, 1, 1, nonIndexed, "5 s"}}},
		{"1000", []load{one(1_000, nonIndexed)}},
		{"10000", []load{one(10_000, nonIndexed), one(1_000, indexed)}},
		{"100000", []load{one(100_000, nonIndexed), one(1_000, indexed)}},
		{"indexed-1000", []load{one(1_000, indexed)}},
		{"indexed-10000", []load{one(10_000, indexed)}},
		{"indexed-100000", []load{one(100_000, indexed)}},
	}
}

const header = `| load | goal | time | pods/s | in the last tenth | CPU a pod | RSS before | RSS growth | of that anonymous |
|---|---|---|---|---|---|---|---|---|
`

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("enginebench", flag.ContinueOnError)
	only := flags.String("series", "", "`regexp` of the names of the series to run")
	var profiles profiles
	flags.StringVar(&profiles.cpu, "cpuprofile", "", "`file` to write a CPU profile to; needs -alone")
	flags.StringVar(&profiles.heap, "memprofile", "", "`file` to write a profile of what is in use at the end to; needs -alone")
	alone := flags.String("alone", "", "`name` of the only series to run, in this very process")
	if err := flags.Parse(args); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard())
	wanted, err := regexp.Compile("^(" + *only + ")$")
	if err != nil {
		return fmt.Errorf("-series: %w", err)
	}
	if *alone == "" {
		if profiles.cpu != "" || profiles.heap != "" {
			return errors.New("a profile is of one process: name the series with -alone")
		}
		fmt.Fprint(out, header)
	}
	ran := false
	for _, s := range allSeries() {
		switch {
		case *alone == s.name:
			err = runSeries(ctx, out, s, profiles)
		case *alone == "" && (*only == "" || wanted.MatchString(s.name)):
			err = runApart(ctx, out, s)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("series %s: %w", s.name, err)
		}
		ran = true
	}
	if !ran {
		return errors.New("no series has that name")
	}
	return nil
}

// runApart runs a series in a process of its own.
func runApart(ctx context.Context, out io.Writer, s series) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-alone", s.name)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd.Run()
}

func runSeries(ctx context.Context, out io.Writer, s series, p profiles) (err error) {
	r, err := startRig(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := p.begin(); err != nil {
		return err
	}
	for i, l := range s.loads {
		after := ""
		if i > 0 {
			after = ", right after that"
		}
		if err := measure(ctx, out, r, "job-"+strconv.Itoa(i), l, after); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return p.end()
}

// fineGrained is how many pods a Job must have for the rate of its last tenth to mean something: they are counted by the hundreds.
const fineGrained = 100_000

// measure runs a load and prints its row.
func measure(ctx context.Context, out io.Writer, r *rig, name string, l load, after string) error {
	before, err := resident()
	if err != nil {
		return err
	}
	cpu, began := cpuTime(), time.Now()
	nineTenths, err := r.runJobs(ctx, name, l)
	if err != nil {
		return err
	}
	ended := time.Now()
	cpu = cpuTime() - cpu
	now, err := resident()
	if err != nil {
		return err
	}
	last := ""
	if l.completions >= fineGrained {
		last = fmt.Sprintf("%.0f", float64(l.pods())/10/ended.Sub(nineTenths).Seconds())
	}
	_, err = fmt.Fprintf(out, "| %s%s | %s | %s | %.0f | %s | %d µs | %d MB | %d MB | %d MB |\n", l, after, l.goal,
		ended.Sub(began).Round(time.Millisecond), float64(l.pods())/ended.Sub(began).Seconds(), last,
		cpu.Microseconds()/int64(l.pods()), before.all>>20, (now.all-before.all)>>20, (now.anonymous-before.anonymous)>>20)
	return err
}
