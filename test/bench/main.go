// Command bench measures the built errand as a user meets it, and prints what
// docs/performance.md records: how long a start and a Job take, how many pods a
// second go through, what an idle errand costs. It needs root, and the binaries
// of `make build kubectl`.
//
// It measures, it doesn't judge: there is no threshold in it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
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
	out    io.Writer
	runs   int
	pods   int
	idle   time.Duration
	config harness.Config
	// runtime is the path of the OCI runtime.
	runtime string
	dir     string
	// bareRates and bareCPU are what the runtime does alone: containers a second,
	// and milliseconds of CPU for one.
	bareRates, bareCPU []float64
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
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, for containers")
	}
	if b.config.Bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if b.runtime, err = findRuntime(*runtime); err != nil {
		return err
	}
	b.config.Args = []string{"--runtime", "bench=" + b.runtime, "--default-runtime", "bench"}
	if b.dir, err = os.MkdirTemp("/tmp", "errand-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	images, err := b.serveImages()
	if err != nil {
		return err
	}
	defer images.Close()
	fmt.Fprintf(out, "%s\n%s, %s\nmedians of %d\n\n", machine(), firstLine(filepath.Join(b.config.Bin, "errand"), "version"), firstLine(b.runtime, "--version"), b.runs)
	fmt.Fprintf(out, "| measure | goal | median | min | max |\n|---|---|---|---|---|\n")
	for _, measure := range []func(context.Context) error{b.start, b.job, b.bare, b.throughput, b.atRest} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) serveImages() (*registry.Server, error) {
	images, err := registry.Start(registry.Options{Dir: filepath.Join(b.dir, "blobs")})
	if err != nil {
		return nil, err
	}
	busybox, err := registry.Busybox(registry.Owner{})
	if err == nil {
		err = images.Push("library/busybox:latest", busybox)
	}
	if err == nil {
		b.config.RegistriesConf = filepath.Join(b.dir, "registries.conf")
		err = images.WriteRegistriesConf(b.config.RegistriesConf)
	}
	if err != nil {
		images.Close()
		return nil, err
	}
	return images, nil
}

// row prints one measure's figures beside what the project wants of it, or
// nothing where the figure only explains another.
func (b *bench) row(name, goal, unit string, figures []float64) {
	slices.Sort(figures)
	format := func(f float64) string { return fmt.Sprintf("%.4g %s", f, unit) }
	fmt.Fprintf(b.out, "| %s | %s | %s | %s | %s |\n", name, goal, format(figures[len(figures)/2]), format(figures[0]), format(figures[len(figures)-1]))
}

// findRuntime is the runtime at path, or else the one of that name in $PATH:
// make build makes none where the host has one that serves.
func findRuntime(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		found, lookErr := exec.LookPath(filepath.Base(path))
		if lookErr != nil {
			return "", fmt.Errorf("%w: run scripts/runc.sh bin/runc, or name one with -runtime", err)
		}
		path = found
	}
	return filepath.Abs(path)
}

// firstLine is the first line that a command prints, or why it doesn't.
func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// with runs do against an errand of its own, in a fresh data directory.
func (b *bench) with(ctx context.Context, do func(*harness.Errand) error, flags ...string) (err error) {
	cfg := b.config
	cfg.Args = slices.Concat(cfg.Args, flags)
	data, err := os.MkdirTemp(b.dir, "d")
	if err != nil {
		return err
	}
	cfg.DataDir = data
	e, err := harness.Start(ctx, cfg)
	if err != nil {
		return err
	}
	err = do(e)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, stopErr := e.Stop(end); err == nil {
		err = stopErr
	}
	if drainErr := e.Drain(end); err == nil {
		err = drainErr
	}
	return err
}
