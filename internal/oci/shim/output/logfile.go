package output

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logMode is what kubelet-managed runtimes give their logs: the owner's, readable by a group of log collectors.
const logMode = 0o640

// LogLimits bound what a container's log takes of the disk, as the kubelet's containerLogMaxSize and containerLogMaxFiles do.
// The zero value lets it grow.
type LogLimits struct {
	// MaxSize is the size in bytes at which a file is followed by the next. Only a single longer record exceeds it.
	MaxSize int64
	// MaxFiles is how many files there are, the current one included: at least 2.
	MaxFiles int
}

// LogFile is a container's log. Writing to it never fails for the container: what a full disk doesn't take is lost. One
// goroutine at a time may use it.
type LogFile struct {
	path   string
	limits LogLimits
	now    func() time.Time
	fd     int
	size   int64     // bytes in the file
	begun  time.Time // when it was opened

	// old guards the rotated files, which a goroutine compresses.
	old struct {
		sync.Mutex
		compressing bool
		closed      bool
	}
}

// OpenLog opens the log at path for appending, making it if there is none.
func OpenLog(path string, limits LogLimits) (*LogFile, error) {
	l := &LogFile{path: path, limits: limits, now: time.Now, fd: -1}
	if err := l.reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) reopen() error {
	fd, err := unix.Open(l.path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY, logMode)
	if err != nil {
		return fmt.Errorf("open log %s: %w", l.path, err)
	}
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
	}
	l.fd, l.begun = fd, l.now()
	l.size, _ = l.stat()
	return nil
}

// stat returns the file's size, 0 if it can't be told.
func (l *LogFile) stat() (size int64, ok bool) {
	var st unix.Stat_t
	if unix.Fstat(l.fd, &st) != nil {
		return 0, false
	}
	return st.Size, true
}

// write appends whole records, and goes on in a new file where they would exceed the limit. It tells whether there is
// something to compress since.
func (l *LogFile) write(p []byte) (compress bool) {
	for len(p) > 0 {
		n := l.fits(p)
		if n == 0 {
			compress = l.rotate() || compress
			// A record that no file has room for gets one of its own.
			n = max(l.fits(p), bytes.IndexByte(p, '\n')+1)
		}
		l.append(p[:n])
		p = p[n:]
	}
	return compress
}

// fits returns how many bytes of the records in p the file has room for.
func (l *LogFile) fits(p []byte) int {
	room := l.limits.MaxSize - l.size
	if l.limits.MaxSize == 0 || int64(len(p)) <= room {
		return len(p)
	}
	return bytes.LastIndexByte(p[:max(room, 0)], '\n') + 1
}

// append appends records. If the disk takes only a part of them that part is taken back, so that the log stays readable
// once there is room again.
func (l *LogFile) append(p []byte) {
	for written := 0; written < len(p); {
		n, err := unix.Write(l.fd, p[written:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.takeBack(written)
			return
		}
		written += max(n, 0)
	}
	l.size += int64(len(p))
}

func (l *LogFile) takeBack(n int) {
	if size, ok := l.stat(); n > 0 && ok && size >= int64(n) {
		_ = unix.Ftruncate(l.fd, size-int64(n))
	}
}

// Close closes the file. Afterwards nothing is made beside it any more.
func (l *LogFile) Close() {
	l.old.Lock()
	defer l.old.Unlock()
	l.old.closed = true
	_ = unix.Close(l.fd)
}
