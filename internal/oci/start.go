package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// shimCgroup is the shim's cgroup below Config.CgroupParent.
const shimCgroup = "shim"

// start starts the shim, unless somebody else just did.
func (c *Client) start(ctx context.Context) error {
	c.mu.Lock()
	drained := c.drained
	c.mu.Unlock()
	if drained {
		return ErrDraining
	}
	if err := os.MkdirAll(c.cfg.RuntimeDir, 0o700); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, filepath.Join(c.cfg.RuntimeDir, "start.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	for deadline := time.Now().Add(startPatience); ; {
		if l, err := c.dial(ctx); err == nil {
			return l.Close()
		}
		err := c.execute(ctx)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == shimapi.ExitRunning && time.Now().Before(deadline) && ctx.Err() == nil {
			// One that an errand started, which was killed since, is on its way: it cleans up after its predecessor before it
			// serves. The program has waited for a while for that one to end.
			continue
		}
		return err
	}
}

// startPatience bounds how long a shim that somebody else started may take until it serves: ten seconds for each container that
// it finds and that can't be killed, else far less.
const startPatience = time.Minute

// execute executes the shim once, to its end if it can't serve.
func (c *Client) execute(ctx context.Context) error {
	args := []string{"--detach", "--dir", c.cfg.RuntimeDir}
	if c.cfg.CgroupParent != "" {
		args = append(args, "--cgroup", filepath.Join(c.cfg.CgroupParent, shimCgroup))
	}
	klog.FromContext(ctx).V(2).Info("Starting the containers' parent", "path", c.cfg.ShimPath, "args", args)
	cmd := exec.CommandContext(ctx, c.cfg.ShimPath, args...)
	cmd.Dir = "/"
	// A session of its own, so that no terminal's signals reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		if text := strings.TrimSpace(string(out)); text != "" {
			return fmt.Errorf("start the containers' parent %s: %s (%w)", c.cfg.ShimPath, text, err)
		}
		return fmt.Errorf("start the containers' parent: %w", err)
	}
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	return nil
}

// lockFile waits for a lock that the kernel lets go of whatever happens to us.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-locked
			f.Close()
		}()
		return nil, context.Cause(ctx)
	}
}

// watchProcess takes hold of a process that lives; the function returned waits for its end.
func watchProcess(ctx context.Context, pid int) func() error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return func() error { return nil } // ended already, or lives in a PID namespace that we don't see
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	return func() error {
		defer f.Close()
		stop := context.AfterFunc(ctx, func() { f.Close() })
		defer stop()
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		err = raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}

// removeCgroup removes the cgroups that the shim, gone now, had for itself. Nobody else knows of them. The parents are looked for
// rather than those: the shim moves in the background, and may have ended before it came to that, while a container's cgroup
// has brought the parent.
func (c *Client) removeCgroup(ctx context.Context) error {
	if c.cfg.CgroupParent == "" {
		return nil
	}
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup" + c.cfg.CgroupParent, "/sys/fs/cgroup/*" + c.cfg.CgroupParent} {
		dirs, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, dir := range dirs {
			if err := removeEmpty(ctx, filepath.Join(dir, shimCgroup)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// How long removeEmpty waits for what has just ended in a cgroup to leave it, and between its tries where the kernel doesn't
// tell of that.
const (
	cgroupPatience = 2 * time.Second
	cgroupPause    = time.Millisecond
)

// removeEmpty removes a cgroup, and its parent unless something else is in it.
func removeEmpty(ctx context.Context, dir string) error {
	if err := rmdir(ctx, dir, syscall.Rmdir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	if err := syscall.Rmdir(filepath.Dir(dir)); err != nil {
		klog.FromContext(ctx).V(4).Info("Parent cgroup stays", "dir", filepath.Dir(dir), "err", err)
	}
	return nil
}

// rmdir removes a cgroup by remove. A process that has ended, and been waited for, may still occupy it for a moment.
func rmdir(ctx context.Context, dir string, remove func(string) error) error {
	deadline := time.Now().Add(cgroupPatience)
	err := remove(dir)
	for pause := cgroupPause; errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); pause *= 2 {
		if !cgroup.AwaitEmpty(dir, time.Until(deadline)) {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return err
			}
		}
		err = remove(dir)
	}
	return err
}
