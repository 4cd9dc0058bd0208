package output

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// errUnneeded says that a file was removed, or the log closed, while it was compressed.
var errUnneeded = errors.New("no longer needed")

// compress compresses a log's rotated files but the newest, which collectors may be reading, in the background. One is
// compressed at a time, of all containers: there is no hurry. done is closed when there are none any more; nil says that
// compressed at a time, of all containers: there is no hurry. done is closed when there are none any more; nil says that
func (p *Pump) compress(l *LogFile) (done chan struct{}) {
	l.old.Lock()
	defer l.old.Unlock()
	if l.old.compressing || l.old.closed {
		return nil // it looks again when it is done with one
	}
	l.old.compressing = true
	done = make(chan struct{})
	go func() {
		defer close(done)
		p.compressing <- struct{}{}
		defer func() { <-p.compressing }()
		l.compressOld()
	}()
	return done
}

func (l *LogFile) compressOld() {
	// The fastest level takes a third of the default's CPU time for a tenth more bytes.
	z, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	for err == nil {
		stamp := l.toCompress()
		if stamp == "" {
			return
		}
		err = l.compressOne(z, l.oldPath(stamp))
	}
	// A full disk, for example: there is another try with the next rotation.
	l.old.Lock()
	defer l.old.Unlock()
	l.old.compressing = false
}

// toCompress returns the newest file that is to be compressed: older ones may be gone sooner. If there is none it notes
// that the goroutine ends.
func (l *LogFile) toCompress() string {
	l.old.Lock()
	defer l.old.Unlock()
	logs, _, err := rotatedLogs(l.path)
	if err == nil && !l.old.closed {
		for _, r := range slices.Backward(logs[:max(0, len(logs)-1)]) {
			if !r.gzip {
				return r.stamp
			}
		}
	}
	l.old.compressing = false
	return ""
}

// compressOne puts a compressed file in the place of the one at path. At each moment at least one of the two is whole.
func (l *LogFile) compressOne(z *gzip.Writer, path string) error {
	from, err := openOld(path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := l.createCompressed(path + gzSuffix + tmpSuffix)
	if err != nil {
		return err
	}
	z.Reset(to)
	// By this, who follows the log and has the other file open finds its place in it.
	inode, err := neededFile{from}.inode()
	z.Comment = fmt.Sprint("inode ", inode)
	if err == nil {
		_, err = io.Copy(z, neededFile{from})
	}
	err = errors.Join(err, z.Close(), to.Close())
	if err == nil {
		err = l.keepCompressed(from, path)
	}
	if err != nil {
		_ = os.Remove(to.Name())
	}
	return err
}

func openOld(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, logMode)
}

// createCompressed makes a file, unless the log has been closed: its directory may be being removed.
func (l *LogFile) createCompressed(path string) (*os.File, error) {
	l.old.Lock()
	defer l.old.Unlock()
	if l.old.closed {
		return nil, errUnneeded
	}
	return openOld(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
}

// keepCompressed exchanges the file at path, which is open as from, for the compressed one.
func (l *LogFile) keepCompressed(from *os.File, path string) error {
	l.old.Lock()
	defer l.old.Unlock()
	if _, err := (neededFile{from}).inode(); err != nil {
		return err
	}
	if l.old.closed {
		return errUnneeded
	}
	if err := os.Rename(path+gzSuffix+tmpSuffix, path+gzSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}

// neededFile can be read until the file is removed.
type neededFile struct{ file *os.File }

// Read implements io.Reader.
func (f neededFile) Read(p []byte) (int, error) {
	if _, err := f.inode(); err != nil {
		return 0, err
	}
	return f.file.Read(p)
}

func (f neededFile) inode() (uint64, error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Nlink == 0 {
		return 0, errUnneeded
	}
	return st.Ino, nil
}
