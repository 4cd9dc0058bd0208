package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitEmpty waits until the cgroup whose directory is dir, of version 2, and those below it have no processes any more, or
// patience has passed. It returns false at once if there is nothing to wait for or by: it is empty, gone, or of version 1,
// which tells nobody.
func AwaitEmpty(dir string, patience time.Duration) (waited bool) {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return false
	}
	defer f.Close()
	for deadline := time.Now().Add(patience); ; waited = true {
		var b [128]byte
		n, _ := f.ReadAt(b[:], 0) // fails once the cgroup is gone
		if !strings.Contains("\n"+string(b[:n]), "\npopulated 1\n") {
			return waited
		}
		left := time.Until(deadline)
		if left <= 0 {
			return waited
		}
		// A change since the last read is told, too: none is missed.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return waited
		}
	}
}
