package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// opened is a directory to be the root of lookups, with what stands for the container outside of it.
func opened(t *testing.T) (fd int, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, dir
}

func TestMakePath(t *testing.T) {
	for name, tc := range map[string]struct {
		links  map[string]string
		path   string
		file   bool
		want   string // where it is made
		failed error
	}{
		"directory":              {path: "/a/b/c", want: "a/b/c"},
		"file":                   {path: "/a/b", file: true, want: "a/b"},
		"through a link":         {links: map[string]string{"run": "real"}, path: "/run/x", want: "real/x"},
		"link to nowhere":        {links: map[string]string{"etc": "missing/deep"}, path: "/etc/x", file: true, want: "missing/deep/x"},
		"absolute link":          {links: map[string]string{"etc": "/missing"}, path: "/etc/x", want: "missing/x"},
		"last is a link":         {links: map[string]string{"resolv.conf": "../run/stub"}, path: "/resolv.conf", file: true, want: "run/stub"},
		"link upwards":           {links: map[string]string{"up": "../../../../../outside"}, path: "/up/x", want: "outside/x"},
		"link of a link":         {links: map[string]string{"a": "b", "b": "c/d"}, path: "/a", want: "c/d"},
		"links in a circle":      {links: map[string]string{"a": "b", "b": "a"}, path: "/a/x", failed: unix.ELOOP},
		"a file on the way":      {links: map[string]string{}, path: "/file/x", failed: unix.ENOTDIR},
		"directory that is file": {path: "/file", failed: unix.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := opened(t)
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for link, target := range tc.links {
				if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			mode := uint32(unix.S_IFDIR | 0o755)
			if tc.file {
				mode = unix.S_IFREG | 0o644
			}
			fd, err := makePath(root, tc.path, mode, maxLinks)
			if !errors.Is(err, tc.failed) {
				t.Fatalf("%v, want %v", err, tc.failed)
			}
			if err != nil {
				return
			}
			defer unix.Close(fd)
			st, err := os.Lstat(filepath.Join(dir, tc.want))
			if err != nil || st.IsDir() == tc.file {
				t.Errorf("%v, %v", st, err)
			}
			var made unix.Stat_t
			if err := unix.Fstat(fd, &made); err != nil || !os.SameFile(st, statOf(t, filepath.Join(dir, tc.want))) || made.Mode&unix.S_IFMT != mode&unix.S_IFMT {
				t.Errorf("%+v, %v", made, err)
			}
			if others, _ := os.ReadDir(filepath.Dir(dir)); len(others) != 1 {
				t.Errorf("made outside of the root: %v", others)
			}
		})
	}
}

func statOf(t *testing.T, path string) os.FileInfo {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestMakePathTogether: containers that share a volume may have the same mount point made at the same time.
func TestMakePathTogether(t *testing.T) {
	root, dir := opened(t)
	for range 50 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				fd, err := makePath(root, "/volume/sub/file", unix.S_IFREG|0o644, maxLinks)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Close(fd)
			})
		}
		wg.Wait()
		if err := os.RemoveAll(filepath.Join(dir, "volume")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestResolveWhileOthersRename: a link with ".." in an image is looked up whatever goes on elsewhere on the machine.
func TestResolveWhileOthersRename(t *testing.T) {
	root, dir := opened(t)
	other := t.TempDir()
	for _, d := range []string{filepath.Join(dir, "var"), filepath.Join(dir, "run"), filepath.Join(other, "a")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../run", filepath.Join(dir, "var/run")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Rename(filepath.Join(other, "a"), filepath.Join(other, "b"))
				_ = os.Rename(filepath.Join(other, "b"), filepath.Join(other, "a"))
			}
		}
	})
	for range 20_000 {
		fd, err := resolve(root, strings.Repeat("var/../", 30)+"var/run", unix.O_PATH)
		if err != nil {
			t.Error(err)
			break
		}
		unix.Close(fd)
	}
	close(stop)
	wg.Wait()
}

// TestOpenOnlyWhatFits: what isn't what it should be isn't opened at all, as opening some devices has effects.
func TestOpenOnlyWhatFits(t *testing.T) {
	root, dir := opened(t)
	l := &Launcher{proc: procFD(t)}
	fifo := filepath.Join(dir, "passwd")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	regular := func(st *unix.Stat_t, _ *unix.Statfs_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }
	if _, err := l.open(root, "/passwd", unix.O_RDONLY, regular); !errors.Is(err, errUnfit) {
		t.Errorf("a FIFO: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := l.open(root, "/file", unix.O_RDONLY, regular)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 8)
	if n, err := unix.Read(fd, buf); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func procFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
