// Package benchrig is what the benchmarks of the built errand share: an errand
// in a folder of its own with an image to run, Jobs of short pods, what they
// took of the machine, an OCI runtime alone to compare that with, and tables.
package benchrig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

// Image is the image that the rig serves: busybox.
const Image = "busybox:latest"

// Rig is where errands are run to be measured. Make it with New, end it with Close.
type Rig struct {
	config harness.Config
	dir    string
	images *registry.Server
}

// New makes one for the errand in the folder bin, in a folder below parent. It
// needs root, as errand does. args are arguments of every errand serve.
func New(bin, parent string, args ...string) (*Rig, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root, for containers")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "errand-bench-")
	if err != nil {
		return nil, err
	}
	r := &Rig{config: harness.Config{Bin: bin, Args: args}, dir: dir}
	if err := r.serveImages(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) serveImages() (err error) {
	if r.images, err = registry.Start(registry.Options{Dir: filepath.Join(r.dir, "blobs")}); err != nil {
		return err
	}
	busybox, err := registry.Busybox(registry.Owner{})
	if err != nil {
		return err
	}
	if err := r.images.Push("library/"+Image, busybox); err != nil {
		return err
	}
	r.config.RegistriesConf = filepath.Join(r.dir, "registries.conf")
	return r.images.WriteRegistriesConf(r.config.RegistriesConf)
}

// Close removes all that the rig made.
func (r *Rig) Close() error {
	if r.images != nil {
		r.images.Close()
	}
	return os.RemoveAll(r.dir)
}

// Dir is the rig's own folder.
func (r *Rig) Dir() string { return r.dir }

// ErrandVersion is the first line of errand version.
func (r *Rig) ErrandVersion() string {
	return FirstLine(filepath.Join(r.config.Bin, "errand"), "version")
}

// endTimeout bounds the end of an errand and the removal of all its pods: far
// more than it takes.
const endTimeout = 3 * time.Minute

// With runs do against an errand of its own, in a fresh data directory, with
// further flags. It takes off the host all that they leave, and fails if that
// can't be done. do may have ended the errand and started another one there, with
// Again; With ends that one.
func (r *Rig) With(ctx context.Context, do func(*Run) error, flags ...string) (err error) {
	cfg := r.config
	cfg.Args = slices.Concat(cfg.Args, flags)
	if cfg.DataDir, err = os.MkdirTemp(r.dir, "d"); err != nil {
		return err
	}
	e, err := harness.Start(ctx, cfg)
	if err != nil {
		return err
	}
	run := &Run{Errand: e, cfg: cfg}
	err = do(run)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_, stopErr := run.Stop(end)
	return cmp.Or(err, stopErr, run.Drain(end), os.RemoveAll(cfg.DataDir))
}

// Run is an errand that is measured.
type Run struct {
	*harness.Errand
	cfg harness.Config
}

// Again starts errand serve once more, after its end, in the same data directory.
// It returns once it is ready.
func (r *Run) Again(ctx context.Context) error {
	e, err := harness.Start(ctx, r.cfg)
	if err != nil {
		return err
	}
	r.Errand = e
	return nil
}

// FindRuntime is the OCI runtime at path, or else the one of that name in $PATH:
// neither make build nor scripts/crun.sh makes one where the host has one that
// serves.
func FindRuntime(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		found, lookErr := exec.LookPath(filepath.Base(path))
		if lookErr != nil {
			return "", fmt.Errorf("%w: make it with scripts/%s.sh, or name one with a flag", err, filepath.Base(path))
		}
		path = found
	}
	return filepath.Abs(path)
}

// FirstLine is the first line that a command prints, or why it doesn't.
func FirstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
