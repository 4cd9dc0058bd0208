package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/runtimepod"
)

// adoptOrphans finds what pods have left that were deleted while no agent was
// there, and has their workers end and remove it: sandboxes and containers,
// volumes, log directories.
//
// Workers are busy meanwhile. What the API has is therefore looked at last: of
// all that was found then, nothing can be of a pod that came later.
func (n *Node) adoptOrphans(ctx context.Context) error {
	found, err := n.traces(ctx)
	if err != nil {
		return err
	}
	logs, err := n.logDirs()
	if err != nil {
		return err
	}
	known, err := n.known()
	if err != nil {
		return err
	}
	for uid := range found {
		if _, ok := known[uid]; !ok && n.worker(uid).orphaned() {
			klog.FromContext(ctx).V(2).Info("Ending a pod that the API no longer has", "podUID", uid)
		}
	}
	for _, dir := range logs {
		uid := crispec.UIDOfLogDir(dir)
		if _, ok := known[uid]; !ok && !found.Has(uid) && !n.looksAfter(uid) {
			n.removeOrphanedLogs(ctx, dir)
		}
	}
	return nil
}

// traces returns the UIDs of all pods of which runtime or disk have something.
func (n *Node) traces(ctx context.Context) (sets.Set[types.UID], error) {
	found := sets.New[types.UID]()
	sandboxes, err := n.cfg.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, s := range sandboxes {
		found.Insert(runtimepod.UIDOf(s.GetLabels()))
	}
	containers, err := n.cfg.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		found.Insert(runtimepod.UIDOf(c.GetLabels()))
	}
	dirs, err := n.volumes.Pods()
	if err != nil {
		return nil, err
	}
	return found.Insert(dirs...).Delete(""), nil
}

// logDirs lists the pods' log directories.
func (n *Node) logDirs() ([]string, error) {
	entries, err := os.ReadDir(n.cfg.LogDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, e.Name())
		}
	}
	return dirs, err
}

// looksAfter tells whether the pod has a worker that knows it, which also removes
// its logs.
func (n *Node) looksAfter(uid types.UID) bool {
	w := n.existing(uid)
	return w != nil && w.latest() != nil
}

// removeLogsOf removes the log directories of a pod whose name isn't known.
func (n *Node) removeLogsOf(uid types.UID) error {
	dirs, err := n.logDirs()
	errs := []error{err}
	for _, dir := range dirs {
		if crispec.UIDOfLogDir(dir) == uid {
			errs = append(errs, os.RemoveAll(filepath.Join(n.cfg.LogDir, dir)))
		}
	}
	return errors.Join(errs...)
}

// removeOrphanedLogs removes the log directory of a pod that is gone, and of which
// nothing else is left.
func (n *Node) removeOrphanedLogs(ctx context.Context, dir string) {
	if err := os.RemoveAll(filepath.Join(n.cfg.LogDir, dir)); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot remove the logs of a pod that is gone")
	}
}
