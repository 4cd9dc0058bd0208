package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
)

// Drain ends all containers of a data directory whose errand serve has been
// stopped, and takes everything off the host that isn't in the directory. Where
// the directory has been deleted, it goes by the names that follow from its
// path.
func Drain(ctx context.Context, o Options, stderr io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("containers are root's: run this with sudo")
	}
	dir, err := datadir.OpenExisting(o.DataDir)
	var held *datadir.HeldError
	if errors.As(err, &held) {
		return errHeld(held)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return drainRemains(ctx, o, err, stderr)
	}
	if err != nil {
		return err
	}
	return errors.Join(drain(ctx, o, dir, stderr), dir.Close())
}

// errHeld says what to do about whoever holds the data directory: another one is of no use to a drain.
func errHeld(held *datadir.HeldError) error {
	what := "stop that one first"
	switch h := held.Holder; {
	case !h.Serves():
		what = "wait for its end"
	case h.PID != 0:
		what += fmt.Sprintf(", by kill %d or, if it is a service, systemctl stop errand", h.PID)
	}
	return fmt.Errorf("data directory %s is held by %s, and errand drain ends what a stopped errand has left: %s", held.Path, held.Holder, what)
}

func drain(ctx context.Context, o Options, dir *datadir.Dir, stderr io.Writer) error {
	names, err := instance.For(dir.Root())
	if err != nil {
		return err
	}
	recorded, err := recordedEndpoints(dir)
	if err != nil {
		return err
	}
	if recorded != (endpoints{}) {
		if err := drainRemote(ctx, recorded, dir, names, stderr); err != nil {
			return err
		}
		return unmountPods(dir, names)
	}
	if _, err := os.Stat(dir.Path("cri")); errors.Is(err, os.ErrNotExist) {
		// There never was a node; or there was, in a directory that was deleted and
		// made anew.
		r, err := findRemains(ctx, dir.Root(), names)
		if err != nil {
			return err
		}
		return r.end(ctx, o)
	}
	programs := FindPrograms(o)
	programs.Runtimes, programs.Default = nil, "" // nothing is started; what was is the shim's
	if err := programs.haveShim(); err != nil {
		return err
	}
	r, err := openRuntime(ctx, runtimeConfig{options: o, programs: programs, dir: dir, names: names})
	if err != nil {
		return err
	}
	fmt.Fprintln(stderr, "ending all containers")
	noteDrained(ctx, dir, r.service, stderr)
	if err := r.destroy(ctx, names.CgroupParent); err != nil {
		return err
	}
	return unmountPods(dir, names)
}

// unmountPods takes down pods' volumes, as nobody runs who would. Files of the
// user's own may be mounted among them, which whoever removes the directory must
// not come upon.
func unmountPods(dir *datadir.Dir, names instance.Names) error {
	path, err := realPath(dir.Root())
	if err != nil {
		return err
	}
	mounts, err := mountsOf(path, names)
	if err != nil {
		return err
	}
	return errors.Join(unmount(mounts), removeRuntimeDir(names))
}

// destroy ends what outlives errand: containers, shim and network.
func (r *containerRuntime) destroy(ctx context.Context, cgroupParent string) error {
	err := r.endContainers(ctx)
	r.service = nil
	if err != nil {
		return errors.Join(err, r.close())
	}
	if err := r.shim.Drain(ctx, true); err != nil {
		return errors.Join(err, r.close())
	}
	// The last to leave it was the shim.
	return errors.Join(r.cgroups.Remove(cgroupParent), r.network.Destroy(), r.close())
}

// endContainers stops and removes all sandboxes. Their containers' ends are
// noticed only while the service runs.
func (r *containerRuntime) endContainers(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.service.Run(running) }()
	err := r.service.Destroy(ctx)
	cancel()
	return errors.Join(err, <-ended)
}
