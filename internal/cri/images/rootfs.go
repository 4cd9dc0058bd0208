package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"

	"errand.dev/errand/internal/cri/idmap"
	"errand.dev/errand/internal/fstree"
)

// Names in a container's directory <root>/rootfs/<container ID>.
const (
	upperDir  = "fs"    // the writable layer
	workDir   = "work"  // overlayfs's own
	chainLink = "image" // a symlink whose target says what is below, see base
	// volumeLink begins the names of symlinks as chainLink is, of the images that the container mounts as volumes.
	volumeLink = "volume-"
)

// containerID is what may name a directory.
var containerID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// rootfsKeeper makes the root file systems of containers, beside containerd's snapshotter rather than through it: a snapshot costs
// four database transactions with a flush each, a directory costs none. In its place stands a symlink in the container's directory
// that names the image's topmost layer; every such layer is a root of the garbage collection (see collection.go).
type rootfsKeeper struct {
	dir         string
	backend     backend
	snapshotter snapshots.Snapshotter

	points *mountPointSets

	// mu is also held while the collector decides what to remove, see collection.go.
	mu    sync.Mutex
	users map[string]base // by container ID
	// volumes are the chain IDs of the images that a container mounts besides its own, by its ID.
	volumes map[string][]string
	// layers caches what a chain ID stands for; emptied by every collection.
	layers map[string]layers
}

// base is what a container's writable layer lies over.
type base struct {
	chain string // the chain ID of the image's layers
	set   string // of mount points; "" for none
}

// String is how it stands in a container's directory: the chain ID, and the set of mount points after a +.
func (b base) String() string {
	if b.set == "" {
		return b.chain
	}
	return b.chain + "+" + b.set
}

func parseBase(s string) base {
	chain, set, _ := strings.Cut(s, "+")
	return base{chain: chain, set: set}
}

// layers are the directories of an image's layers, the topmost first, and the owner that its root directory has.
type layers struct {
	dirs     []string
	uid, gid int
}

func newRootfsKeeper(root string, b backend, sn snapshots.Snapshotter) (*rootfsKeeper, error) {
	k := &rootfsKeeper{
		dir:         filepath.Join(root, "rootfs"),
		backend:     b,
		snapshotter: sn,
		users:       map[string]base{},
		volumes:     map[string][]string{},
		layers:      map[string]layers{},
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of containers' roots: %w", err)
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, fmt.Errorf("list containers' roots: %w", err)
	}
	sets := map[string]int{}
	for _, e := range entries {
		dir := filepath.Join(k.dir, e.Name())
		target, err := os.Readlink(filepath.Join(dir, chainLink))
		if errors.Is(err, fs.ErrNotExist) {
			// A crash in the midst of prepare or remove: nobody was ever given it, or nobody wants it any more.
			if err := fstree.Remove(dir); err != nil {
				return nil, fmt.Errorf("remove an unfinished container root: %w", err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a container's root: %w", err)
		}
		below := parseBase(target)
		k.users[e.Name()] = below
		if below.set != "" {
			sets[below.set]++
		}
		if k.volumes[e.Name()], err = volumeChains(dir); err != nil {
			return nil, err
		}
	}
	k.points, err = openMountPointSets(filepath.Join(root, "mountpoints"), sets)
	return k, err
}

// noLayers is the chain ID in the symlink of a container whose image has no layers.
const noLayers = "none"

// prepare makes a fresh writable layer over the snapshot chainID.
func (k *rootfsKeeper) prepare(ctx context.Context, id, chainID string, o RootOptions) (_ []mount.Mount, err error) {
	if !containerID.MatchString(id) {
		return nil, fmt.Errorf("container ID %q can't name a directory: %w", id, errdefs.ErrInvalidArgument)
	}
	if chainID == "" {
		chainID = noLayers
	}
	base := base{chain: chainID}
	if k.backend.overlay() && chainID != noLayers {
		if base.set, err = k.points.claim(o.MountPoints); err != nil {
			return nil, err
		}
	}
	if err := k.claim(id, base); err != nil {
		return nil, errors.Join(err, k.points.release(base.set))
	}
	dir := filepath.Join(k.dir, id)
	defer func() {
		if err != nil {
			err = errors.Join(err, fstree.Remove(dir), k.release(id))
		}
	}()
	below, err := k.resolve(ctx, base)
	if err != nil {
		return nil, err
	}
	if below.uid, below.gid, err = mappedOwner(below, o.Users); err != nil {
		return nil, err
	}
	upper := filepath.Join(dir, upperDir)
	// The symlink comes before anything that costs: whoever finds the directory after a crash knows what it is.
	for _, step := range []func() error{
		func() error { return os.Mkdir(dir, 0o700) },
		func() error { return os.Symlink(base.String(), filepath.Join(dir, chainLink)) },
		func() error { return k.makeUpper(ctx, upper, below) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("make the root of container %s: %w", id, err)
		}
	}
	return k.mounts(dir, below), nil
}

// mappedOwner is who owns the root directory on disk, in the upper directory of an overlay.
func mappedOwner(below layers, users *idmap.Mapping) (uid, gid int, err error) {
	if users == nil {
		return below.uid, below.gid, nil
	}
	hostUID, okUID := users.Users.ToHost(uint32(below.uid))
	hostGID, okGID := users.Groups.ToHost(uint32(below.gid))
	if !okUID || !okGID {
		return 0, 0, fmt.Errorf("the image's root directory belongs to user %d and group %d, which the pod's user namespace hasn't: %w", below.uid, below.gid, errdefs.ErrFailedPrecondition)
	}
	return int(hostUID), int(hostGID), nil
}

// claim makes an image's layers safe from collection for the container id.
func (k *rootfsKeeper) claim(id string, b base) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.users[id]; ok {
		return fmt.Errorf("the root of container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	k.users[id] = b
	return nil
}

// release is idempotent.
func (k *rootfsKeeper) release(id string) error {
	k.mu.Lock()
	set := k.users[id].set
	delete(k.users, id)
	delete(k.volumes, id)
	k.mu.Unlock()
	return k.points.release(set)
}

// makeUpper makes the writable directory: empty for an overlay, else a copy of the image.
func (k *rootfsKeeper) makeUpper(ctx context.Context, upper string, below layers) error {
	if err := os.Mkdir(upper, 0o755); err != nil {
		return err
	}
	// Explicitly: a strict umask of ours must not show in containers.
	if err := os.Chmod(upper, 0o755); err != nil {
		return err
	}
	if k.backend.overlay() {
		if err := os.Mkdir(filepath.Join(filepath.Dir(upper), workDir), 0o700); err != nil {
			return err
		}
		if below.uid == os.Geteuid() && below.gid == os.Getegid() {
			return nil
		}
		return os.Lchown(upper, below.uid, below.gid)
	}
	if len(below.dirs) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return continuity.CopyDir(upper, below.dirs[0], continuity.WithXAttrErrorHandler(func(_, _, xattr string, err error) error {
		if xattr == "security.selinux" {
			return nil // the copy gets a label of its own
		}
		return err
	}))
}

// mounts returns what mounts the root in dir.
func (k *rootfsKeeper) mounts(dir string, below layers) []mount.Mount {
	upper := filepath.Join(dir, upperDir)
	if !k.backend.overlay() || len(below.dirs) == 0 {
		return []mount.Mount{{Type: "bind", Source: upper, Options: []string{"rbind", "rw"}}}
	}
	return []mount.Mount{overlayMount(below.dirs, upper, filepath.Join(dir, workDir), k.backend.overlayOptions)}
}

// resolve finds the directories of what a container's root lies over. The caller has claimed it.
func (k *rootfsKeeper) resolve(ctx context.Context, b base) (layers, error) {
	below, err := k.resolveChain(ctx, b.chain)
	if err == nil && b.set != "" {
		below.dirs = append(slices.Clip(below.dirs), k.points.path(b.set))
	}
	return below, err
}

// resolveChain finds the directories of a chain. The caller has claimed it, or takes the risk that they vanish.
func (k *rootfsKeeper) resolveChain(ctx context.Context, chainID string) (layers, error) {
	if chainID == noLayers {
		return layers{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	k.mu.Lock()
	found, ok := k.layers[chainID]
	k.mu.Unlock()
	if ok {
		return found, nil
	}
	dirs, err := k.backend.layerDirs(ctx, k.snapshotter, chainID)
	if err != nil {
		return layers{}, fmt.Errorf("find the image's layers: %w", err)
	}
	st, err := os.Stat(dirs[0])
	if err != nil {
		return layers{}, fmt.Errorf("find the image's layers: %w", err)
	}
	found = layers{dirs: dirs}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		found.uid, found.gid = int(sys.Uid), int(sys.Gid)
	}
	k.mu.Lock()
	k.layers[chainID] = found
	k.mu.Unlock()
	return found, nil
}

// unpacked reports whether the snapshot of an image's topmost layer exists.
func (k *rootfsKeeper) unpacked(ctx context.Context, chainID string) bool {
	if chainID == "" {
		return true
	}
	_, err := k.snapshotter.Stat(ctx, chainID)
	return err == nil
}

// remove deletes a container's root. The caller has unmounted it. Idempotent.
func (k *rootfsKeeper) remove(id string) error {
	if !containerID.MatchString(id) {
		return fmt.Errorf("container ID %q can't name a directory: %w", id, errdefs.ErrInvalidArgument)
	}
	dir := filepath.Join(k.dir, id)
	volumes, err := volumeLinks(dir)
	if err != nil {
		return err
	}
	// The symlink goes last: should we be interrupted, the container still counts as there.
	for _, name := range append(volumes, workDir, upperDir, chainLink) {
		if err := fstree.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove the root of container %s: %w", id, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the root of container %s: %w", id, err)
	}
	return k.release(id)
}

// upperOf returns a container's writable directory.
func (k *rootfsKeeper) upperOf(id string) (string, error) {
	if _, err := k.baseOf(id); err != nil {
		return "", err
	}
	return filepath.Join(k.dir, id, upperDir), nil
}

// chainsOf returns the chains of the layers that a container needs: its root's, and its volumes'.
func (k *rootfsKeeper) chainsOf(id string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	below, ok := k.users[id]
	if !ok {
		return nil
	}
	return append([]string{below.chain}, k.volumes[id]...)
}

func (k *rootfsKeeper) baseOf(id string) (base, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	below, ok := k.users[id]
	if !ok {
		return base{}, fmt.Errorf("the root of container %s: %w", id, errdefs.ErrNotFound)
	}
	return below, nil
}

func (k *rootfsKeeper) list() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := make([]string, 0, len(k.users))
	for id := range k.users {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}
