package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/oci/native"
	"errand.dev/errand/internal/oci/shimapi"
	"errand.dev/errand/internal/podtrace"
)

// Run implements Runtime.
func (c *Client) Run(ctx context.Context, req RunRequest) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	_, step := podtrace.Start(ctx, "PrepareLaunch", "")
	wire, err := c.wireRun(ctx, req)
	step.End(err)
	if err != nil {
		return 0, err
	}
	done, err := c.enter(req.ID)
	if err != nil {
		return 0, err
	}
	defer done()
	type result struct {
		started shimapi.Started
		err     error
	}
	res := make(chan result, 1)
	go func() {
		var r result
		// Not ctx: hanging up would leave open whether the container was started.
		ctx, step := podtrace.Start(context.WithoutCancel(ctx), "RunInShim", "")
		r.err = c.call(ctx, shimapi.OpRun, req.ID, wire, &r.started)
		if took := time.Duration(r.started.LaunchNanos); took > 0 {
			step.Record(podtrace.Done{Name: "Launch", Detail: launcher(wire), Start: r.started.At.Add(-took), End: r.started.At})
		}
		step.End(r.err)
		res <- r
	}()
	select {
	case r := <-res:
		if wire.Launch != nil {
			r.err = c.removeInVain(wire.CgroupsPath, r.err)
		}
		return r.started.Pid, r.err
	case <-ctx.Done():
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	// Ends a start in progress; a request to start that comes only after it is undone by the second one.
	err = c.Delete(cleanup, req.ID)
	select {
	case r := <-res:
		if r.err == nil {
			err = c.Delete(cleanup, req.ID)
		}
	case <-cleanup.Done():
	}
	if err != nil {
		return 0, fmt.Errorf("%w; the container may be left: %w", context.Cause(ctx), err)
	}
	return 0, context.Cause(ctx)
}

// launcher is what turns the bundle into a process.
func launcher(run *shimapi.Run) string {
	if run.Launch != nil {
		return "errand"
	}
	return run.Handler.Name
}

// removeInVain removes the cgroup that was made for a Run which ended with err, and returns that. The parent, or its successor, removes
// those of the containers that it knows; a container of which it never heard is known to nobody else.
func (c *Client) removeInVain(path string, err error) error {
	if err == nil || errors.Is(err, ErrExists) {
		return err
	}
	failed := c.cgroups.Remove(path)
	if errors.Is(err, ErrParentLost) {
		return err // what runs in it is the successor's to end
	}
	return errors.Join(err, failed)
}

// enter notes that a Run is in flight, so that Events holds back its container's exit.
func (c *Client) enter(id string) (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.inFlight[id]; ok {
		return nil, fmt.Errorf("%w: %s is being started", ErrExists, id)
	}
	ch := make(chan struct{})
	c.inFlight[id] = ch
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.inFlight, id)
		close(ch)
	}, nil
}

func (c *Client) wireRun(ctx context.Context, req RunRequest) (*shimapi.Run, error) {
	name := req.Handler
	if name == "" {
		name = c.cfg.DefaultHandler
	}
	handler, ok := c.handlers[name]
	if !ok && name != "" {
		return nil, fmt.Errorf("%w: no OCI runtime %q is configured; there are: %s",
			ErrInvalid, name, strings.Join(slices.Sorted(maps.Keys(c.handlers)), ", "))
	}
	spec, err := readSpec(req.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process.Terminal != req.Terminal {
		return nil, fmt.Errorf("%w: %s: process.terminal is %v, but the request says %v", ErrInvalid, req.Bundle, spec.Process.Terminal, req.Terminal)
	}
	run := &shimapi.Run{
		ID: req.ID, Bundle: req.Bundle, Handler: handler,
		CgroupsPath: spec.Linux.CgroupsPath, Poststop: spec.Hooks != nil && len(spec.Hooks.Poststop) > 0,
		LogPath: req.LogPath, LogMaxLine: req.LogMaxLine, LogMaxSize: req.LogMaxSize, LogMaxFiles: req.LogMaxFiles,
		Stdin: req.Stdin, StdinOnce: req.StdinOnce, Terminal: req.Terminal,
	}
	if c.cfg.Native && req.Handler == "" {
		run.Launch, err = c.translate(ctx, req.ID, spec)
	} else if name == "" {
		err = noRuntime(req.ID, "errand's own launcher is not to be used")
	}
	return run, err
}

// noRuntime says that a container can't be started where there is no OCI runtime.
func noRuntime(id, why string) error {
	return &RuntimeError{ID: id, Message: why + ", and errand has found no OCI runtime that could start the container: install one (errand doctor says which serve) and restart errand"}
}

// translate prepares a container for errand's own launcher, which saves the executions of an OCI runtime. It returns nil if that
// doesn't take the container and there is a runtime that does.
func (c *Client) translate(ctx context.Context, id string, spec *specs.Spec) (*shimapi.Launch, error) {
	launch, err := c.translator.Launch(spec)
	var not *native.Unsupported
	if errors.As(err, &not) && c.cfg.DefaultHandler == "" {
		return nil, noRuntime(id, not.Error())
	}
	if errors.As(err, &not) {
		klog.FromContext(ctx).V(4).Info("An OCI runtime starts the container", "container", id, "because", not.Error())
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := c.cgroups.Create(spec.Linux.CgroupsPath, spec.Linux.Resources); err != nil {
		return nil, &RuntimeError{ID: id, Message: fmt.Sprintf("OCI runtime create failed: %v", err)}
	}
	return launch, nil
}

// readSpec reads a bundle's specification. Of what every container needs nothing is nil in it.
func readSpec(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if spec.Process == nil || spec.Linux == nil {
		return nil, fmt.Errorf("%w: %s: process or linux is missing", ErrInvalid, path)
	}
	if !filepath.IsAbs(spec.Linux.CgroupsPath) {
		return nil, fmt.Errorf("%w: %s: linux.cgroupsPath is %q, but must be absolute: what is left of a container after a crash is found by it",
			ErrInvalid, path, spec.Linux.CgroupsPath)
	}
	return spec, nil
}
