// Package userns allots the host's user and group IDs to pods with a user
// namespace of their own (hostUsers: false, KEP-127).
//
// It owns which pod has which range, over restarts: a file in the pod's directory
// says so until the pod's end. It makes no user namespace; the container runtime
// does.
package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/atomicfile"
)

// IDsPerPod is how many users and groups a pod has: those that programs count on,
// and as many as the kubelet gives by default.
const IDsPerPod = 1 << 16

// endOfIDs is the first ID beyond the default ones.
const endOfIDs = math.MaxInt32 + 1 - 2*IDsPerPod

// fileName is the file's in a pod's directory.
const fileName = "userns"

// IDs are the host's that pods may be allotted: Length from First on.
type IDs struct {
	First, Length uint32
}

// DefaultIDs begin where the kubelet's do, after the host's own. They end below the
// half of all IDs that some programs take for negative numbers, and the 65536
// before, which systemd reserves for files of other machines.
func DefaultIDs() IDs {
	return IDs{First: IDsPerPod, Length: endOfIDs - IDsPerPod}
}

// ParseIDs reads FIRST:LENGTH, as in /etc/subuid.
func ParseIDs(s string) (IDs, error) {
	first, length, ok := strings.Cut(s, ":")
	from, err := strconv.ParseUint(first, 10, 32)
	count, err2 := strconv.ParseUint(length, 10, 32)
	switch {
	case !ok || err != nil || err2 != nil:
		return IDs{}, fmt.Errorf("%q is no range of IDs: want FIRST:LENGTH, such as 65536:7208960", s)
	case from < IDsPerPod:
		return IDs{}, fmt.Errorf("%q: the IDs up to %d are the host's own", s, IDsPerPod-1)
	case from+count > math.MaxUint32:
		return IDs{}, fmt.Errorf("%q goes beyond the last ID, %d", s, uint32(math.MaxUint32-1))
	}
	return IDs{First: uint32(from), Length: uint32(count)}, nil
}

// String is what ParseIDs reads.
func (i IDs) String() string { return fmt.Sprintf("%d:%d", i.First, i.Length) }

// Pods is how many pods there are IDs for.
func (i IDs) Pods() int { return int(i.Length / IDsPerPod) }

// Allotter allots ranges. It is safe for concurrent use.
type Allotter struct {
	dir string
	ids IDs

	mu   sync.Mutex
	next int                  // the place to be tried first
	used map[types.UID]uint32 // the first IDs of pods' ranges
}

// record is a pod's file.
type record struct {
	First  uint32 `json:"first"`
	Length uint32 `json:"length"`
}

// New returns an Allotter that knows what was allotted before, from the pods'
// directories in dir.
func New(dir string, ids IDs) (*Allotter, error) {
	if ids.Pods() == 0 {
		return nil, fmt.Errorf("the range %s of user IDs holds no pod, which has %d", ids, IDsPerPod)
	}
	a := &Allotter{dir: dir, ids: ids, used: map[types.UID]uint32{}}
	// Another errand on this machine begins elsewhere, so that they hardly meet.
	seed := fnv.New32a()
	seed.Write([]byte(dir)) //nolint:errcheck // a hash never fails
	a.next = int(seed.Sum32() % uint32(ids.Pods()))
	files, err := filepath.Glob(filepath.Join(globEscape(dir), "*", fileName))
	if err != nil {
		return nil, fmt.Errorf("look for pods' user IDs: %w", err)
	}
	for _, f := range files {
		first, err := read(f)
		if err != nil {
			return nil, err
		}
		a.used[types.UID(filepath.Base(filepath.Dir(f)))] = first
	}
	return a, nil
}

func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

func read(path string) (uint32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read a pod's user IDs: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.First < IDsPerPod || r.Length != IDsPerPod {
		return 0, errors.Join(fmt.Errorf("the file %s doesn't hold a pod's user IDs: end the pod's containers, then remove it", path), err)
	}
	return r.First, nil
}

// Allot returns the pod's user namespace, the same one until Release. It is on
// record before it is returned.
func (a *Allotter) Allot(uid types.UID) (*runtimeapi.UserNamespace, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, ok := a.used[uid]
	if !ok {
		place, found := a.free()
		if !found {
			return nil, fmt.Errorf("all %d ranges of user IDs for pods with hostUsers: false are taken", a.ids.Pods())
		}
		first = a.first(place)
		if err := a.write(uid, first); err != nil {
			return nil, fmt.Errorf("note the pod's user IDs: %w", err)
		}
		a.used[uid], a.next = first, place+1
	}
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: IDsPerPod}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

func (a *Allotter) first(place int) uint32 { return a.ids.First + uint32(place)*IDsPerPod }

// free finds a place, the ones that were given back last being tried last.
func (a *Allotter) free() (place int, found bool) {
	for i := range a.ids.Pods() {
		place := (a.next + i) % a.ids.Pods()
		if !a.taken(a.first(place)) {
			return place, true
		}
	}
	return 0, false
}

// taken says whether a range from first on meets one of a pod's, which may be from
// before the IDs were configured anew.
func (a *Allotter) taken(first uint32) bool {
	for _, used := range a.used {
		if first < used+IDsPerPod && used < first+IDsPerPod {
			return true
		}
	}
	return false
}

func (a *Allotter) write(uid types.UID, first uint32) error {
	b, err := json.Marshal(record{First: first, Length: IDsPerPod})
	if err != nil {
		return err
	}
	dir := filepath.Join(a.dir, string(uid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, fileName), b, 0o600)
}

// Release gives the pod's range back, if it has one. Nothing of the pod may run
// any more.
func (a *Allotter) Release(uid types.UID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.used[uid]; !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(a.dir, string(uid), fileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give the pod's user IDs back: %w", err)
	}
	delete(a.used, uid)
	return nil
}
