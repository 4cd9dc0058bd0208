package output

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// logMode is what kubelet-managed runtimes give their logs: the owner's, readable by a group of log collectors.
const logMode = 0o640

// LogFile is a container's log. Writing to it never fails for the container: what a full disk doesn't take is lost.
type LogFile struct {
	path string
	fd   int
}

// OpenLog opens the log at path for appending, making it if there is none.
func OpenLog(path string) (*LogFile, error) {
	fd, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &LogFile{path: path, fd: fd}, nil
}

func openLog(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY, logMode)
	if err != nil {
		return -1, fmt.Errorf("open log %s: %w", path, err)
	}
	return fd, nil
}

func (l *LogFile) reopen() error {
	fd, err := openLog(l.path)
	if err != nil {
		return err
	}
	_ = unix.Close(l.fd)
	l.fd = fd
	return nil
}

// write appends whole records. If the disk takes only a part of them that part is taken back, so that the log stays
// readable once there is room again.
func (l *LogFile) write(p []byte) {
	for written := 0; written < len(p); {
		n, err := unix.Write(l.fd, p[written:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.takeBack(written)
			return
		}
		written += max(n, 0)
	}
}

func (l *LogFile) takeBack(n int) {
	var st unix.Stat_t
	if n > 0 && unix.Fstat(l.fd, &st) == nil && st.Size >= int64(n) {
		_ = unix.Ftruncate(l.fd, st.Size-int64(n))
	}
}

// Close closes the file.
func (l *LogFile) Close() { _ = unix.Close(l.fd) }
