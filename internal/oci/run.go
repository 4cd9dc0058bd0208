package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"errand.dev/errand/internal/oci/shimapi"
)

// Run implements Runtime.
func (c *Client) Run(ctx context.Context, req RunRequest) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	wire, err := c.wireRun(req)
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
		r.err = c.call(context.WithoutCancel(ctx), shimapi.OpRun, req.ID, wire, &r.started)
		res <- r
	}()
	select {
	case r := <-res:
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

func (c *Client) wireRun(req RunRequest) (*shimapi.Run, error) {
	name := req.Handler
	if name == "" {
		name = c.cfg.DefaultHandler
	}
	handler, ok := c.handlers[name]
	if !ok {
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
	return &shimapi.Run{
		ID: req.ID, Bundle: req.Bundle, Handler: handler,
		CgroupsPath: spec.Linux.CgroupsPath, Poststop: len(spec.Hooks.Poststop) > 0,
		LogPath: req.LogPath, LogMaxLine: req.LogMaxLine,
		Stdin: req.Stdin, StdinOnce: req.StdinOnce, Terminal: req.Terminal,
	}, nil
}

// bundleSpec is what of an OCI config matters to the shim. It's read here as the shim is better off without such parsing.
type bundleSpec struct {
	Process struct {
		Terminal bool `json:"terminal"`
	} `json:"process"`
	Linux struct {
		CgroupsPath string `json:"cgroupsPath"`
	} `json:"linux"`
	Hooks struct {
		Poststop []json.RawMessage `json:"poststop"`
	} `json:"hooks"`
}

func readSpec(bundle string) (*bundleSpec, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var spec bundleSpec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if !filepath.IsAbs(spec.Linux.CgroupsPath) {
		return nil, fmt.Errorf("%w: %s: linux.cgroupsPath is %q, but must be absolute: what is left of a container after a crash is found by it",
			ErrInvalid, path, spec.Linux.CgroupsPath)
	}
	return &spec, nil
}
