package logrotation

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A rotated file is called as the kubelet calls it, so that log collectors know
// it: <log>.20060102-150405, in UTC so that it doesn't jump; with .gz behind once it
// is compressed, and .tmp while it is being. A number tells those of one second
// apart.
const (
	stampLayout = "20060102-150405"
	gzSuffix    = ".gz"
	tmpSuffix   = ".tmp"
)

var stampName = regexp.MustCompile(`^\d{8}-\d{6}(\.\d{6})?$`)

// logMode is what runtimes give their logs: the owner's, readable by a group of
// log collectors.
const logMode = 0o640

// makeRoom removes the rotated files that are too many with one more, compresses
// the others, and returns the stamp for the one more, which stays as it is until the
// next rotation: collectors may be reading it.
func makeRoom(path string, maxFiles int, now time.Time) (stamp string, err error) {
	stamps, err := rotated(path)
	if err != nil {
		return "", err
	}
	excess := max(0, len(stamps)-(maxFiles-2))
	for _, s := range stamps[:excess] {
		if err := remove(path+"."+s, path+"."+s+gzSuffix); err != nil {
			return "", err
		}
	}
	stamps = stamps[excess:]
	last := ""
	if len(stamps) > 0 {
		last = stamps[len(stamps)-1]
	}
	// The newest of them is so no longer.
	for _, s := range stamps {
		if err := compress(path + "." + s); err != nil {
			return "", err
		}
	}
	return next(now, last), nil
}

// rotated returns the stamps of the log's rotated files, oldest first, and removes
// what a crash has left half done.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var stamps []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		name, unfinished := strings.CutSuffix(rest, tmpSuffix)
		name = strings.TrimSuffix(name, gzSuffix)
		switch {
		case !ok || !stampName.MatchString(name):
		case unfinished:
			if err := remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return nil, err
			}
		default:
			stamps = append(stamps, name)
		}
	}
	slices.Sort(stamps)
	return slices.Compact(stamps), nil
}

// next is the stamp of a file that is rotated now. Stamps ascend, whatever the
// clock does.
func next(now time.Time, last string) string {
	stamp := now.UTC().Format(stampLayout)
	if last == "" || stamp > last[:len(stampLayout)] {
		return stamp
	}
	second, number, _ := strings.Cut(last, ".")
	n, _ := strconv.Atoi(number) // "" is 0
	return fmt.Sprintf("%s.%06d", second, n+1)
}

// compress puts a compressed file in the place of the one at path, if that isn't
// compressed yet. At each moment at least one of the two is whole.
func compress(path string) error {
	from, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // was only read
	info, err := from.Stat()
	if err != nil {
		return err
	}
	tmp := path + gzSuffix + tmpSuffix
	to, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, logMode)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(to)
	// By this, who follows the log and has the other file open finds its place in it.
	z.Comment = fmt.Sprint("inode ", info.Sys().(*syscall.Stat_t).Ino)
	_, err = io.Copy(z, from)
	if err = errors.Join(err, z.Close(), to.Close()); err == nil {
		err = os.Rename(tmp, path+gzSuffix)
	}
	if err != nil {
		return errors.Join(err, remove(tmp))
	}
	return remove(path)
}

func remove(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
