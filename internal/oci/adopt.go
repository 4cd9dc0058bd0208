package oci

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"errand.dev/errand/internal/oci/shimapi"
)

// replaceTimeout bounds how long an idle shim may take to end.
const replaceTimeout = 10 * time.Second

// adopt finds the shim that runs, or starts one, and lets go of one that an upgrade has left behind: it outlives every
// errand, so nobody else would ever end it.
func (c *Client) adopt(ctx context.Context) error {
	build, err := c.ping(ctx)
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	if err != nil || started {
		return err
	}
	installed, err := c.installedBuild(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Can't tell whether the containers' parent is of the build that is installed", "running", build)
		return nil
	}
	if build == installed {
		return nil
	}
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		klog.FromContext(ctx).Info("The containers' parent is of another build; it is replaced when errand starts while it has no containers",
			"running", build, "installed", installed, "containers", len(list))
		return nil
	}
	return c.replace(ctx, build, installed)
}

// ping returns the build of the shim that runs.
func (c *Client) ping(ctx context.Context) (build string, err error) {
	l, err := c.open(ctx, shimapi.OpPing, "", nil)
	if err != nil {
		return "", err
	}
	defer l.Close()
	fds, err := l.next(nil)
	shimapi.CloseFDs(fds)
	return l.hello.Build, explain(ctx, err)
}

// installedBuild asks the program rather than takes errand's own version: it may be an older one that is found there, and
// to replace that by itself at every start would be of no use.
func (c *Client) installedBuild(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, c.cfg.ShimPath, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", c.cfg.ShimPath, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// replace ends the idle shim; the next call starts the installed one. It doesn't kill: should a container have been started
// since, by another process, that goes on.
func (c *Client) replace(ctx context.Context, build, installed string) error {
	klog.FromContext(ctx).Info("Replacing the containers' parent", "running", build, "installed", installed)
	ctx, cancel := context.WithTimeout(ctx, replaceTimeout)
	defer cancel()
	if err := c.drain(ctx, false); err != nil {
		return fmt.Errorf("replace the containers' parent, of build %s: %w", build, err)
	}
	return nil
}
