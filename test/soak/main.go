// Command soak puts many pods through one errand, and looks again and again at
// what errand holds on to: memory, goroutines, descriptors, mounts, namespaces,
// firewall rules, disk. It fails if some of that grows with the number of pods
// that have been. It needs root, and the binaries of `make build kubectl`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type options struct {
	bin                  string
	pods, every, workers int
	heap                 string
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "`folder` of errand, errand-shim, runc and kubectl")
	flags.IntVar(&o.pods, "pods", 20000, "pods in all")
	flags.IntVar(&o.every, "every", 2000, "pods between two looks")
	flags.IntVar(&o.workers, "jobs", 6, "Jobs at a time")
	flags.StringVar(&o.heap, "heap", "", "`folder` for a heap profile, a dump of goroutines and the metrics of each look")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.pods < 1 || o.every < 1 || o.workers < 1 {
		return errors.New("-pods, -every and -jobs must be at least 1")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for containers")
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "errand-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images, conf, err := registry.StartBusybox("", dir)
	if err != nil {
		return err
	}
	defer images.Close()
	// Two hundred addresses and some: an address that isn't given back is missed.
	cfg := harness.Config{Bin: o.bin, DataDir: filepath.Join(dir, "data"), RegistriesConf: conf, Args: []string{
		"--pod-cidr", podCIDR(), "--pod-failure-backoff", "10ms", "--max-pod-failure-backoff", "100ms",
		// The store's index grows until the first events go: that is to be over soon.
		"--event-ttl", "1m",
	}}
	e, err := harness.Start(ctx, cfg)
	if err != nil {
		return err
	}
	soakErr := soak(ctx, e, cfg.DataDir, o, out)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, stopErr := e.Stop(end)
	return errors.Join(soakErr, stopErr, e.Drain(end))
}

// podCIDR is a range for benchmarks (RFC 2544), another one for each process.
func podCIDR() string { return fmt.Sprintf("198.18.%d.0/24", os.Getpid()%256) }

// soak puts the pods through, in portions, and judges what it saw between them.
func soak(ctx context.Context, e *harness.Errand, dataDir string, o options, out io.Writer) error {
	w, err := newWork(ctx, e, o.workers)
	if err != nil {
		return err
	}
	// Every kind once: what is there then is there to stay.
	if err := w.portion(ctx, w.leastPods()); err != nil {
		return err
	}
	eye := &eye{errand: e, dataDir: dataDir, client: w.client, heap: o.heap}
	began := time.Now()
	printHeader(out)
	var seen []sample
	for {
		s, err := eye.look(ctx)
		if err != nil {
			return err
		}
		s.Pods, s.At = w.done, time.Since(began)
		seen = append(seen, s)
		s.print(out)
		if w.done >= o.pods {
			break
		}
		if err := w.portion(ctx, min(o.every, o.pods-w.done)); err != nil {
			return err
		}
	}
	return judge(seen)
}
