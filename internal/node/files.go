package node

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/node/volumes"
)

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

type mountInput struct {
	env      []crispec.EnvVar
	podIPs   []string
	restarts int32
	images   map[string]image // by the volume's name
}

// mounts makes the files of a run and returns everything that is mounted into it:
// volumes, hosts file and termination message file.
func (w *worker) mounts(ctx context.Context, pod *v1.Pod, c *v1.Container, in mountInput) ([]*runtimeapi.Mount, error) {
	logDir := filepath.Join(w.n.spec.PodLogDir(pod.Namespace, pod.Name, pod.UID), c.Name)
	if err := makeDirs(logDir, w.n.podDir(w.uid)); err != nil {
		return nil, err
	}
	values := make(map[string]string, len(in.env))
	for _, e := range in.env {
		values[e.Name] = e.Value
	}
	mounts, err := w.n.volumes.Mounts(pod, c, volumes.RunInput{
		Volumes: w.withImages(pod, in.images), Env: values, RecursiveReadOnly: ptr.Deref(w.recursive, false),
	})
	if err != nil {
		return nil, err
	}
	if crispec.MountsHosts(pod, c, in.podIPs) {
		m, err := w.hostsMount(pod, in.podIPs)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	if c.TerminationMessagePath != "" {
		m, err := w.terminationMount(c, in.restarts)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// withImages are the pod's volumes, those that are images with the image that the
// runtime has pulled for the run.
func (w *worker) withImages(pod *v1.Pod, images map[string]image) map[string]volumes.Volume {
	if len(images) == 0 {
		return w.vols
	}
	vols := maps.Clone(w.vols)
	for name, img := range images {
		v := vols[name]
		v.Image = &runtimeapi.ImageSpec{Image: img.Ref, UserSpecifiedImage: v.Image.GetUserSpecifiedImage(), Annotations: pod.Annotations}
		vols[name] = v
	}
	return vols
}

func (w *worker) hostsMount(pod *v1.Pod, podIPs []string) (*runtimeapi.Mount, error) {
	content, err := w.n.spec.Hosts(pod, podIPs)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(w.n.podDir(w.uid), "etc-hosts")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return nil, err
	}
	return &runtimeapi.Mount{ContainerPath: crispec.HostsPath, HostPath: path, SelinuxRelabel: true}, nil
}

// terminationMount makes the run's empty termination message file, which any
// user in the container may write.
func (w *worker) terminationMount(c *v1.Container, restarts int32) (*runtimeapi.Mount, error) {
	path := w.n.terminationFile(w.uid, c.Name, restarts)
	if err := errors.Join(os.WriteFile(path, nil, 0o666), os.Chmod(path, 0o666)); err != nil {
		return nil, err
	}
	return &runtimeapi.Mount{ContainerPath: filepath.Join("/", c.TerminationMessagePath), HostPath: path, SelinuxRelabel: true}, nil
}

// nextRestart numbers the container's next run, counted from 0. If the runtime
// knows of no run, logs may: a number must not be used twice, or one run's log
// would hide another's.
func (w *worker) nextRestart(pod *v1.Pod, rt *runtimepod.Pod, c *v1.Container) int32 {
	if last := rt.Latest(c.Name); last != nil {
		return last.RestartCount + 1
	}
	logs, err := logsOf(filepath.Join(w.n.spec.PodLogDir(pod.Namespace, pod.Name, pod.UID), c.Name))
	if err != nil {
		return 0
	}
	next := int32(0)
	for n := range logs {
		next = max(next, n+1)
	}
	return next
}

// prune removes all ended runs of a container but the newest, which is kept for
// its logs and exit code. rt is from before the run now started.
func (w *worker) prune(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, name string) {
	for i, run := range rt.Runs(name) {
		if i == 0 || run.State != runtimepod.Exited || run.Lost {
			continue
		}
		err := w.keepRun(ctx, pod, rt, run)
		if err == nil {
			err = w.removeRun(ctx, run)
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Cannot remove an old run of a container yet", "container", name, "err", err)
		}
	}
}

// removeRun removes a run that is over, with its log and termination message.
func (w *worker) removeRun(ctx context.Context, run *runtimepod.Container) error {
	if err := w.n.cfg.Runtime.RemoveContainer(ctx, run.ID); err != nil {
		return err
	}
	delete(w.ended, run.ID)
	return errors.Join(
		removeLog(run.LogPath),
		removeIfThere(w.n.terminationFile(w.uid, run.Name, run.RestartCount)),
	)
}

// removeLog removes a log with its rotated files, of which each has its name
// and a dot before its own.
func removeLog(path string) error {
	if path == "" {
		return nil
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	errs := []error{removeIfThere(path)}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			errs = append(errs, removeIfThere(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(errs...)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); path != "" && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
