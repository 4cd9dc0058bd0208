package images

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserveSize is far more than the databases need to write down that something was removed.
const reserveSize = 1 << 20

// reserve is a file that does nothing but take space. On a full disk the databases couldn't record a removal, hence nothing could be
// removed: then the file goes, and comes back when there is space again.
type reserve struct {
	path string
	mu   sync.Mutex
}

func newReserve(root string) *reserve { return &reserve{path: filepath.Join(root, "reserve")} }

// keep makes the file unless it is there. On a disk that is too full for it, it is left for the next time.
func (r *reserve) keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, reserveSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, reserveSize))
	}
	if err != nil {
		_ = os.Remove(r.path) // a part of it would pass for the whole
	}
}

func (r *reserve) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.Remove(r.path) // it is there or it isn't
}

// during runs fn, again if the disk was full, this time with the reserve's space.
func (r *reserve) during(fn func() error) error {
	err := fn()
	if !noSpace(err) {
		return err
	}
	r.release()
	defer r.keep()
	return fn()
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
