package volumes

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"
)

// churn does so until the test's other work is done.
func churn(t *testing.T, work func()) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var churning sync.WaitGroup
	churning.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				work()
			}
		}
	})
	return func() {
		close(done)
		churning.Wait()
	}
}

func TestSetGroup(t *testing.T) {
	root := t.TempDir()
	modes := map[string]os.FileMode{"dir/program": os.ModeSetuid | 0o755, "dir/private": 0o600}
	for name, mode := range modes {
		mustWrite(t, filepath.Join(root, name), "")
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := setGroup(root, ptr.To[int64](4711), false); err != nil {
		t.Fatal(err)
	}
	const others = 0o007 // as the umask has it
	for name, want := range map[string]uint32{
		"": unix.S_IFDIR | 0o2770, "dir": unix.S_IFDIR | 0o2770, "link": unix.S_IFLNK | 0o770,
		"dir/program": unix.S_IFREG | 0o4770, "dir/private": unix.S_IFREG | 0o660,
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Gid != 4711 || st.Mode&^others != want {
			t.Errorf("%q has the group %d and the mode %o, want %o", name, st.Gid, st.Mode, want)
		}
	}
}

// Other pods make and remove files in a claim's volume while it is handed over.
func TestSetGroupWhileOthersWork(t *testing.T) {
	root := t.TempDir()
	stop := churn(t, func() {
		for _, name := range []string{"a", "b", "c/d", "e/f"} {
			path := filepath.Join(root, name)
			_ = os.MkdirAll(path, 0o755)
			_ = os.WriteFile(filepath.Join(path, "x"), nil, 0o644)
		}
		for _, name := range []string{"a", "b", "c", "e"} {
			_ = os.RemoveAll(filepath.Join(root, name))
		}
	})
	defer stop()
	for range 500 {
		if err := setGroup(root, ptr.To[int64](4711), false); err != nil {
			t.Fatal(err)
		}
	}
}

// A container that swaps its files for links as fast as it can has its own handed
// over, never the host's.
func TestSetGroupUnderAttack(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "x")
	mustWrite(t, secret, "")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	mustWrite(t, filepath.Join(root, "dir/x"), "")
	mustWrite(t, filepath.Join(root, "file"), "")
	for link, target := range map[string]string{"evil": outside, "link": secret} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	stop := churn(t, func() {
		for a, b := range map[string]string{"dir": "evil", "file": "link"} {
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, a), unix.AT_FDCWD, filepath.Join(root, b), unix.RENAME_EXCHANGE)
		}
	})
	for range 2000 {
		if err := setGroup(root, ptr.To[int64](4711), false); err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	var st unix.Stat_t
	if err := unix.Stat(secret, &st); err != nil {
		t.Fatal(err)
	}
	if st.Gid == 4711 || st.Mode&0o777 != 0o600 {
		t.Errorf("the host's file has the group %d and the mode %o", st.Gid, st.Mode)
	}
}
