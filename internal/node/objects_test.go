package node

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"errand.dev/errand/internal/node/volumes"
)

// A container decides what lies in a volume: nothing of the host's is read for it.
func TestFilesOfVolumes(t *testing.T) {
	host, vol := t.TempDir(), t.TempDir()
	mustWrite(t, filepath.Join(host, "secret"), "A='host'")
	mustWrite(t, filepath.Join(vol, "dir/env"), "A='1'")
	for link, target := range map[string]string{"inner": "dir/env", "outer": filepath.Join(host, "secret"), "up": "../" + filepath.Base(host) + "/secret"} {
		if err := os.Symlink(target, filepath.Join(vol, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(vol, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(vol, "big"))
	if err := errors.Join(err, big.Truncate(maxEnvFile+1), big.Close()); err != nil {
		t.Fatal(err)
	}
	o := runObjects{vols: map[string]volumes.Volume{"v": {HostPath: vol}, "image": {}}}
	for _, path := range []string{"dir/env", "inner"} {
		f, err := o.File("v", path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if b, err := io.ReadAll(f); string(b) != "A='1'" || f.Close() != nil {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	for path, want := range map[string]string{"outer": "escapes", "up": "escapes", "fifo": "no regular file", "dir": "no regular file", "big": "more than"} {
		if _, err := o.File("v", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := o.File("v", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what isn't there: %v", err)
	}
	for _, volume := range []string{"other", "image"} {
		if _, err := o.File(volume, "env"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("volume %s: %v", volume, err)
		}
	}
}
