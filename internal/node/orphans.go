package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/runtimepod"
)

// adoptOrphans finds what pods have left that were deleted while no agent was
// there, and has their workers end and remove it: sandboxes and containers,
// volumes, log directories.
func (n *Node) adoptOrphans(ctx context.Context) error {
	known, err := n.known()
	if err != nil {
		return err
	}
	orphans := map[types.UID]struct{}{}
	add := func(uid types.UID) {
		if _, ok := known[uid]; !ok && uid != "" {
			orphans[uid] = struct{}{}
		}
	}
	sandboxes, err := n.cfg.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		add(runtimepod.UIDOf(s.GetLabels()))
	}
	containers, err := n.cfg.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return err
	}
	for _, c := range containers {
		add(runtimepod.UIDOf(c.GetLabels()))
	}
	dirs, err := n.volumes.Pods()
	if err != nil {
		return err
	}
	for _, uid := range dirs {
		add(uid)
	}
	for uid := range orphans {
		klog.FromContext(ctx).V(2).Info("Ending a pod that the API no longer has", "podUID", uid)
		n.worker(uid).gone(nil)
	}
	return n.removeOrphanedLogs(ctx, known)
}

// removeOrphanedLogs removes the log directories of pods that are gone. Those of
// orphans that still run are made by nobody any more, so they may go as well.
func (n *Node) removeOrphanedLogs(ctx context.Context, known map[types.UID]struct{}) error {
	entries, err := os.ReadDir(n.cfg.LogDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := known[crispec.UIDOfLogDir(e.Name())]; ok || !e.IsDir() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(n.cfg.LogDir, e.Name())); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot remove the logs of a pod that is gone")
		}
	}
	return nil
}
