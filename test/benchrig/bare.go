package benchrig

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

// Bare is what an OCI runtime did alone: containers a second, and CPU for one.
type Bare struct {
	Rate float64
	CPU  time.Duration
}

// BareAtATime is twice the two cores of the machines that the figures are for.
const BareAtATime = 4

// Bare measures an OCI runtime alone, without errand: so many containers of one
// file each, as many at a time as errand starts, with the runtime's own default
// specification (its namespaces, no network but loopback, no seccomp filter). It
// says what part of the throughput is the machine's and the runtime's.
func (r *Rig) Bare(ctx context.Context, runtime string, containers int) (Bare, error) {
	bundle, err := r.bundle(ctx, runtime)
	if err != nil {
		return Bare{}, err
	}
	began := time.Now()
	spent, err := r.runBare(ctx, runtime, bundle, containers)
	if err != nil {
		return Bare{}, err
	}
	return Bare{Rate: float64(containers) / time.Since(began).Seconds(), CPU: spent / time.Duration(containers)}, os.RemoveAll(bundle)
}

// bundle makes an OCI bundle whose container is busybox's echo.
func (r *Rig) bundle(ctx context.Context, runtime string) (string, error) {
	dir, err := os.MkdirTemp(r.dir, "bundle")
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
	spec := exec.CommandContext(ctx, runtime, "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s spec: %w: %s", runtime, err, out)
	}
	path := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	edited := strings.NewReplacer(`"terminal": true`, `"terminal": false`, `"sh"`, `"echo", "Hello, Job"`).Replace(string(config))
	if edited == string(config) {
		return "", fmt.Errorf("%s spec writes no shell with a terminal: %s", runtime, config)
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
func (r *Rig) runBare(ctx context.Context, runtime, bundle string, containers int) (time.Duration, error) {
	var mu sync.Mutex
	var spent time.Duration
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(BareAtATime)
	for i := range containers {
		g.Go(func() error {
			cmd := exec.CommandContext(ctx, runtime, "--root", filepath.Join(r.dir, "state"), "run", "--bundle", bundle, fmt.Sprintf("bare-%d", i))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s run: %w: %s", runtime, err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			spent += cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
			return nil
		})
	}
	err := g.Wait()
	return spent, err
}
