package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// MountPoint is a place in a container's root where something is going to be mounted.
type MountPoint struct {
	// Path is absolute and clean.
	Path string
	// File: a file is mounted there, else a directory.
	File bool
}

// mountPointSets keeps layers of nothing but mount points, one for each set of them, to lie below an image's own layers. Whoever
// mounts something in a root has to make the place for it first, which in an overlay means to copy up directories and to make
// inodes, and to remove all of them with the container: for a usual pod more than for everything else that it has on disk. The
// pods of a Job, and most others, have the same few places. What the image has at a place hides what is here.
//
// A set goes with the last container's root that is over it. One that was in the making or going when errand died is removed
// when it starts.
type mountPointSets struct {
	dir string

	mu    sync.Mutex
	users map[string]int // set → the roots over it
}

// unfinishedSet is a set in the making.
const unfinishedSet = "new"

// openMountPointSets takes over the sets in dir that roots are over, and removes the others.
func openMountPointSets(dir string, users map[string]int) (*mountPointSets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of mount points: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the sets of mount points: %w", err)
	}
	for _, e := range entries {
		if users[e.Name()] > 0 {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("remove an unused set of mount points: %w", err)
		}
	}
	return &mountPointSets{dir: dir, users: users}, nil
}

// claim returns the name of the set of these points, which it makes if there is none, and keeps it until it is released as often
// as it was claimed. Without points it returns "".
func (m *mountPointSets) claim(points []MountPoint) (string, error) {
	if len(points) == 0 {
		return "", nil
	}
	points = slices.SortedFunc(slices.Values(points), func(a, b MountPoint) int { return strings.Compare(a.Path, b.Path) })
	set := setName(points)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users[set] == 0 {
		if err := m.make(set, points); err != nil {
			return "", fmt.Errorf("make mount points: %w", err)
		}
	}
	m.users[set]++
	return set, nil
}

// setName depends on the points alone.
func setName(points []MountPoint) string {
	h := sha256.New()
	for _, p := range points {
		fmt.Fprintf(h, "%q %t\n", p.Path, p.File)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (m *mountPointSets) make(set string, points []MountPoint) error {
	dir := filepath.Join(m.dir, unfinishedSet)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := makeDirs(m.dir, unfinishedSet); err != nil {
		return err
	}
	for _, p := range points {
		below := p.Path
		if p.File {
			below = filepath.Dir(p.Path)
		}
		if err := makeDirs(dir, below); err != nil {
			return err
		}
		if !p.File {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, p.Path), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
			return err
		}
	}
	// What a removal that failed has left would be in the way.
	if err := os.RemoveAll(m.path(set)); err != nil {
		return err
	}
	return os.Rename(dir, m.path(set))
}

// makeDirs makes a path below root, of directories that all may enter whatever our umask is: a container sees them.
func makeDirs(root, path string) error {
	at := root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		at = filepath.Join(at, name)
		switch err := os.Mkdir(at, 0o755); {
		case errors.Is(err, os.ErrExist):
		case err != nil:
			return err
		default:
			if err := os.Chmod(at, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// release gives up a claim. The root over the set must have been unmounted.
func (m *mountPointSets) release(set string) error {
	if set == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users[set]--; m.users[set] > 0 {
		return nil
	}
	delete(m.users, set)
	if err := os.RemoveAll(m.path(set)); err != nil {
		return fmt.Errorf("remove a set of mount points: %w", err)
	}
	return nil
}

func (m *mountPointSets) path(set string) string { return filepath.Join(m.dir, set) }
