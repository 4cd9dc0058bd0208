package podserver

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// gzSuffix ends the names of compressed files.
const gzSuffix = ".gz"

// rotatedName is what follows a log's name in that of a rotated file: as the
// kubelet names them, and with a number if there are several of one second.
// Without gzSuffix they are in the order in which they were written.
var rotatedName = regexp.MustCompile(`^\.\d{8}-\d{6}(\.\d{6})?(\.gz)?$`)

// advance goes on with the file that follows the open one in the log. It returns
// false if that is the last, or the next isn't there yet.
func (l *logFile) advance() (bool, error) {
	for {
		next, stem, settled, err := l.successor()
		switch {
		case err != nil || next == nil && settled:
			return false, err
		case settled:
			l.use(next, stem)
			return true, nil
		}
	}
}

// successor opens the file that follows the open one, nil if there is none, and
// tells its stem, "" if it is the present one. Of
// files that were removed meanwhile nothing is left to be read. It hasn't settled
// which one that is if the log was rotated under its eyes.
func (l *logFile) successor() (next *os.File, stem string, settled bool, err error) {
	if !l.replaced() {
		return nil, "", true, nil
	}
	olds, err := l.rotated()
	if err != nil {
		return nil, "", false, err
	}
	at, found := l.after(olds)
	if !found {
		// It is gone, if it wasn't just compressed.
		if again, err := l.rotated(); err != nil || !slices.Equal(again, olds) {
			return nil, "", false, err
		}
	}
	if at < len(olds) {
		next, err = l.open(olds[at])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, "", false, nil // removed, or compressed
		}
		return next, stemOf(olds[at]), true, err
	}
	next, err = l.open(l.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", true, nil // the old one has been renamed, the new one isn't there yet
	}
	if err != nil {
		return nil, "", false, err
	}
	// If nothing was rotated since, it is the one after the last of olds.
	again, err := l.rotated()
	if err == nil && newest(again) == newest(olds) {
		return next, "", true, nil
	}
	return nil, "", false, errors.Join(err, next.Close())
}

// replaced tells whether the log's name leads to another file than the open one.
func (l *logFile) replaced() bool {
	named, err := l.root.Stat(l.name)
	if err != nil {
		return false
	}
	open, err := l.file.Stat()
	return err == nil && !os.SameFile(named, open)
}

// rotated returns the names, below root, of the rotated files, oldest first; of
// one that is there compressed and not only the latter.
func (l *logFile) rotated() ([]string, error) {
	olds, err := l.readRotated()
	for err == nil {
		// Reading a directory may miss what gets another name meanwhile.
		var again []string
		if again, err = l.readRotated(); slices.EqualFunc(olds, again, func(a, b string) bool { return stemOf(a) == stemOf(b) }) {
			return again, err
		}
		olds = again
	}
	return nil, err
}

func (l *logFile) readRotated() ([]string, error) {
	dir, err := l.root.Open(path.Dir(l.name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var olds []string
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, path.Base(l.name)); ok && rotatedName.MatchString(rest) {
			olds = append(olds, path.Join(path.Dir(l.name), name))
		}
	}
	slices.SortFunc(olds, func(a, b string) int { return cmp.Or(strings.Compare(stemOf(a), stemOf(b)), strings.Compare(a, b)) })
	return slices.CompactFunc(olds, func(a, b string) bool { return stemOf(a) == stemOf(b) }), nil
}

func stemOf(name string) string { return strings.TrimSuffix(name, gzSuffix) }

func newest(olds []string) string {
	if len(olds) == 0 {
		return ""
	}
	return stemOf(olds[len(olds)-1])
}

// after returns the place in olds of the file that follows the open one, which
// isn't the log any more: len(olds) if it was the last. If the open one isn't
// found that is the oldest of those that can follow it.
func (l *logFile) after(olds []string) (at int, found bool) {
	if l.stem != "" {
		at, found = slices.BinarySearchFunc(olds, l.stem, func(name, stem string) int { return strings.Compare(stemOf(name), stem) })
		if found {
			at++
		}
		return at, true
	}
	open, err := l.file.Stat()
	if err != nil {
		return 0, false
	}
	for i, name := range slices.Backward(olds) {
		info, err := l.root.Stat(name)
		switch {
		case err != nil:
			return 0, false // it may have been this one: look no further, as older ones may have had its inode
		case os.SameFile(info, open) || l.compressedOf(name, open):
			return i + 1, true
		}
	}
	return 0, false
}

// compressedOf tells whether a file was compressed from the open one, whose
// inode no other has while it is open: errand-shim notes it as gzip's comment.
func (l *logFile) compressedOf(name string, open os.FileInfo) bool {
	if !strings.HasSuffix(name, gzSuffix) {
		return false
	}
	f, err := l.open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	return err == nil && z.Comment == fmt.Sprint("inode ", open.Sys().(*syscall.Stat_t).Ino)
}
