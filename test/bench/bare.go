package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// bare measures the OCI runtime alone, without errand: as many containers of
// one file each as there are pods in the Job of many, as many at a time as
// errand starts, with the runtime's own default specification (its namespaces,
// no network but loopback, no seccomp filter). It says what part of the
// throughput is the machine's and the runtime's.
func (b *bench) bare(ctx context.Context) error {
	bundle, err := b.bundle(ctx)
	if err != nil {
		return err
	}
	var rates, cpus []float64
	for range b.runs {
		began := time.Now()
		spent, err := b.runBare(ctx, bundle)
		if err != nil {
			return err
		}
		rates = append(rates, float64(b.pods)/time.Since(began).Seconds())
		cpus = append(cpus, float64(spent.Microseconds())/1000/float64(b.pods))
	}
	b.bareRates, b.bareCPU = rates, cpus
	b.row(fmt.Sprintf("the OCI runtime alone, %d containers, %d at a time", b.pods, bareAtATime), "", "containers/s", rates)
	b.row("of that, CPU a container", "", "ms", cpus)
	return nil
}

// bareAtATime is twice the two cores of the machines that the figures are for.
const bareAtATime = 4

// bundle makes an OCI bundle whose container is busybox's echo.
func (b *bench) bundle(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "bundle")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	if err := copyFile(filepath.Join(bin, "echo"), "/bin/busybox"); err != nil {
		return "", err
	}
	spec := exec.CommandContext(ctx, b.runtime, "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s spec: %w: %s", b.runtime, err, out)
	}
	path := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	edited := strings.NewReplacer(`"terminal": true`, `"terminal": false`, `"sh"`, `"echo", "Hello, Job"`).Replace(string(config))
	if edited == string(config) {
		return "", fmt.Errorf("%s spec writes no shell with a terminal: %s", b.runtime, config)
	}
	return dir, os.WriteFile(path, []byte(edited), 0o644)
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// runBare runs all containers and returns the CPU time that they took.
func (b *bench) runBare(ctx context.Context, bundle string) (time.Duration, error) {
	var mu sync.Mutex
	var spent time.Duration
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bareAtATime)
	for i := range b.pods {
		g.Go(func() error {
			cmd := exec.CommandContext(ctx, b.runtime, "--root", filepath.Join(b.dir, "state"), "run", "--bundle", bundle, fmt.Sprintf("bare-%d", i))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s run: %w: %s", b.runtime, err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			spent += cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
			return nil
		})
	}
	return spent, g.Wait()
}
