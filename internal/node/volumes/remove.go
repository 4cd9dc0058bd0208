package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/fstree"
)

// Teardown takes all volumes of a pod away: it unmounts and removes what Setup
// and Mounts made, whether this process made it or one before, and forgets the
// pod's tokens. The pod's containers must be gone. It is idempotent; after an
// error it can be called again. What else stands in the pod's directory stays.
func (m *Manager) Teardown(_ context.Context, uid types.UID) error {
	return m.teardown(uid, func(podDir string) error {
		for _, name := range []string{subPathsDir, volumesDir} {
			if err := fstree.Remove(filepath.Join(podDir, name)); err != nil {
				return err
			}
		}
		err := os.Remove(podDir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		return err
	})
}

// Remove does what Teardown does and removes the pod's whole directory.
func (m *Manager) Remove(_ context.Context, uid types.UID) error {
	return m.teardown(uid, fstree.Remove)
}

func (m *Manager) teardown(uid types.UID, clear func(podDir string) error) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	m.mu.Lock()
	st := m.pods[uid]
	m.mu.Unlock()
	if st != nil {
		st.work.Lock()
		defer st.work.Unlock()
		m.forget(uid, st)
	}
	err := clear(m.podDir(uid))
	if m.cfg.MemoryDir != "" {
		err = errors.Join(err, fstree.Remove(filepath.Join(m.cfg.MemoryDir, string(uid))))
	}
	if err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
	}
	return nil
}

func (m *Manager) forget(uid types.UID, st *podState) {
	if st.timer != nil {
		st.timer.Stop()
	}
	st.gone = true
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] == st {
		delete(m.pods, uid)
		m.dropObjects(uid, st)
	}
}
