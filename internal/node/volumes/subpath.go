package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/fstree"
)

// A sub-path leads through directories that containers can write to: a
// container may at any moment replace one by a link to the host's /etc. So the
// way is walked by the kernel, which refuses to leave the volume (openat2 with
// RESOLVE_BENEATH), and what it found is pinned by a bind mount of the open
// file; the runtime gets the path of the pin.

// resolveTries bounds how often a walk is repeated that a rename disturbed.
const resolveTries = 32

func (m *Manager) subPathTarget(uid types.UID, volume, container string, index int) string {
	return filepath.Join(m.podDir(uid), subPathsDir, volume, container, strconv.Itoa(index))
}

// bindSubPath mounts what lies at sub below root on target and returns target.
// A sub-path that doesn't exist is created as a directory with the root's mode.
// A target that already shows the same file is left as it is.
func bindSubPath(root, sub, target string) (string, error) {
	fd, err := openSubPath(root, sub)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }() // O_PATH: nothing was written
	var want unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return "", err
	}
	if ready, err := clearTarget(target, want); err != nil || ready {
		return target, err
	}
	if err := makeTarget(target, want.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	return target, nil
}

// clearTarget tells whether the wanted file is already mounted on target. If
// something else is there it is taken away.
func clearTarget(target string, want unix.Stat_t) (ready bool, err error) {
	var have unix.Stat_t
	switch err := unix.Lstat(target, &have); {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, &fs.PathError{Op: "lstat", Path: target, Err: err}
	case have.Dev == want.Dev && have.Ino == want.Ino:
		return true, nil
	}
	return false, fstree.Remove(target)
}

func makeTarget(target string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(target, 0o750)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// openSubPath opens sub below root (O_PATH), creating the directories that are
// missing. The caller closes the descriptor.
func openSubPath(root, sub string) (int, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errors.New("the volume is no directory")
	}
	defer func() { _ = unix.Close(base) }() // O_PATH: nothing was written
	fd, err := openBeneath(base, sub)
	if !errors.Is(err, unix.ENOENT) {
		return fd, describeEscape(err)
	}
	if err := makeBeneath(base, sub); err != nil {
		return -1, describeEscape(err)
	}
	fd, err = openBeneath(base, sub)
	return fd, describeEscape(err)
}

func openBeneath(base int, path string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(base, path, how)
		if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && try < resolveTries {
			continue
		}
		return fd, err
	}
}

// makeBeneath creates the directories of the path that are missing, with the
// mode of base, so that a volume's fsGroup has access to them.
func makeBeneath(base int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(base, &st); err != nil {
		return err
	}
	parts := strings.Split(path, "/")
	parent := base
	for i := range parts {
		way := strings.Join(parts[:i+1], "/")
		next, err := openBeneath(base, way)
		if errors.Is(err, unix.ENOENT) {
			next, err = makeDirAt(parent, parts[i], st.Mode&0o7777)
		}
		if errors.Is(err, unix.EEXIST) {
			// Another pod with the same claim has just made it.
			next, err = openBeneath(base, way)
		}
		if parent != base {
			_ = unix.Close(parent) // O_PATH: nothing was written
		}
		if err != nil {
			return err
		}
		parent = next
	}
	if parent != base {
		return unix.Close(parent)
	}
	return nil
}

// makeDirAt creates a directory and opens it without following a link that
// something may have put in its place. The mode is set past the umask.
func makeDirAt(parent int, name string, mode uint32) (int, error) {
	if err := unix.Mkdirat(parent, name, mode); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// describeEscape words what the user can do something about, and no more: paths
// of the host are not the pod's to know.
func describeEscape(err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return errors.New("it leads out of the volume")
	case errors.Is(err, unix.ENOENT):
		return errors.New("a link on it leads nowhere")
	case errors.Is(err, unix.ENOSYS):
		return errors.New("subPath needs openat2, which Linux has since 5.6")
	}
	return err
}
