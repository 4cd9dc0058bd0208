//go:build node

package cri_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Others may go through the runtime directory to reach what is theirs: a pod's root its
// containers' bundles, and nobody else's set-user-ID programs in any container's root.
func TestBundlesAreClosed(t *testing.T) {
	m := newMachine(t)
	l := m.start()
	defer l.destroy()
	ctx := context.Background()
	const first = 9 << 16
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: 1 << 16}}
	for name, c := range map[string]struct {
		users *runtimeapi.UserNamespace
		mode  os.FileMode
		group uint32
	}{
		"host":  {nil, 0o700, 0},
		"users": {&runtimeapi.UserNamespace{Uids: ids, Gids: ids}, 0o710, first},
	} {
		config := l.pod(name)
		config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = c.users
		pod, err := l.RunPodSandbox(ctx, config, "")
		must(t, err)
		id, err := l.CreateContainer(ctx, pod, shell("c", "true"), nil)
		must(t, err)
		for _, dir := range []string{"bundles/" + id, "sandboxes/" + pod} {
			st, err := os.Stat(filepath.Join(m.names.RuntimeDir, dir))
			must(t, err)
			if sys := st.Sys().(*syscall.Stat_t); st.Mode().Perm() != c.mode || sys.Uid != 0 || sys.Gid != c.group {
				t.Errorf("%s: %s is %s of user %d and group %d; want %s, 0 and %d", name, dir, st.Mode(), sys.Uid, sys.Gid, c.mode, c.group)
			}
		}
	}
}
