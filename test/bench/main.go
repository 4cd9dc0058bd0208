// Command bench measures the built errand as a user meets it, and prints what
// docs/performance.md records: how long a start and a Job take, how many pods a
// second go through, what an idle errand costs. It needs root, and the binaries
// of `make build kubectl`.
//
// It measures, it doesn't judge: there is no threshold in it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"errand.dev/errand/test/benchrig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of all measurements.
type bench struct {
	*benchrig.Rig
	out  io.Writer
	runs int
	pods int
	idle time.Duration
	// runtime is the path of the OCI runtime.
	runtime string
	// bareRates and bareCPU are what the runtime does alone: containers a second,
	// and milliseconds of CPU for one.
	bareRates, bareCPU benchrig.Figures
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`folder` of errand, errand-shim and kubectl")
	runtime := flags.String("runtime", "bin/runc", "`path` of the OCI runtime to measure with")
	flags.IntVar(&b.runs, "runs", 7, "runs of what is repeated")
	flags.IntVar(&b.pods, "pods", 200, "pods of the Job that measures throughput")
	flags.DurationVar(&b.idle, "idle", 20*time.Second, "how long to look at an idle errand, each time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.runtime, err = benchrig.FindRuntime(*runtime); err != nil {
		return err
	}
	if b.Rig, err = benchrig.New(*bin, "/tmp", "--runtime", "bench="+b.runtime, "--default-runtime", "bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	fmt.Fprintf(out, "%s\n%s, %s\nmedians of %d\n\n", benchrig.Machine(), b.ErrandVersion(), benchrig.FirstLine(b.runtime, "--version"), b.runs)
	benchrig.Header(out)
	for _, measure := range []func(context.Context) error{b.start, b.job, b.bare, b.throughput, b.atRest} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// row prints one measure's figures.
func (b *bench) row(name, goal, unit string, figures benchrig.Figures) {
	benchrig.Row(b.out, name, goal, unit, figures)
}
