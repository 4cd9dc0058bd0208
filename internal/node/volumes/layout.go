package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/memoryfs"
)

// The kubelet's plugin names as they stand in paths.
const (
	pluginEmptyDir    = "kubernetes.io~empty-dir"
	pluginConfigMap   = "kubernetes.io~configmap"
	pluginSecret      = "kubernetes.io~secret"
	pluginProjected   = "kubernetes.io~projected"
	pluginDownwardAPI = "kubernetes.io~downward-api"

	volumesDir  = "volumes"
	subPathsDir = "volume-subpaths"
)

// errBadUID guards the file system against pods whose UID is no plain name.
var errBadUID = errors.New("the pod's UID cannot name a directory")

func checkUID(uid types.UID) error {
	s := string(uid)
	if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
		return fmt.Errorf("%w: %q", errBadUID, s)
	}
	return nil
}

func (m *Manager) podDir(uid types.UID) string {
	return filepath.Join(m.cfg.RootDir, string(uid))
}

// volumeDir is where the volume lies: in memory if it may hold secrets.
func (m *Manager) volumeDir(uid types.UID, plugin, name string) string {
	root := m.cfg.RootDir
	if m.cfg.MemoryDir != "" && (plugin == pluginSecret || plugin == pluginProjected) {
		root = m.cfg.MemoryDir
	}
	return filepath.Join(root, string(uid), volumesDir, plugin, name)
}

// makeRoots creates the two directories, others than root having no access to
// memoryDir, and sees to it that memoryDir is a tmpfs.
func makeRoots(rootDir, memoryDir string) error {
	if err := os.MkdirAll(rootDir, 0o750); err != nil {
		return err
	}
	if memoryDir == "" {
		return nil
	}
	if err := os.MkdirAll(memoryDir, 0o700); err != nil {
		return err
	}
	ok, err := usableTmpfs(memoryDir)
	if err != nil || ok {
		return err
	}
	if err := memoryfs.Mount(memoryDir); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// usableTmpfs tells whether the directory lies on a tmpfs from which programs
// may be run: scripts in Secrets are common, and a bind mount inherits noexec.
func usableTmpfs(dir string) (bool, error) {
	on, err := memoryfs.Look(dir)
	return on.Memory && !on.NoExec, err
}

// Pods lists the UIDs of the pods that have something on disk or in memory,
// for the node to tear down those that no longer exist.
func (m *Manager) Pods() ([]types.UID, error) {
	seen := map[types.UID]struct{}{}
	var uids []types.UID
	for _, root := range []string{m.cfg.RootDir, m.cfg.MemoryDir} {
		if root == "" {
			continue
		}
		entries, err := os.ReadDir(root)
		if err != nil {
			return nil, fmt.Errorf("volumes: %w", err)
		}
		for _, e := range entries {
			uid := types.UID(e.Name())
			if _, dup := seen[uid]; e.IsDir() && !dup {
				seen[uid] = struct{}{}
				uids = append(uids, uid)
			}
		}
	}
	return uids, nil
}
