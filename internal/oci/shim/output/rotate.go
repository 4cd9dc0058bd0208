package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A rotated file is called as the kubelet calls it, so that log collectors know it: <log>.20060102-150405 (in UTC, so that it
// doesn't jump), compressed with .gz behind, while that is being written with .tmp. Of those of one second, which the kubelet
// doesn't make, all but the first have a number as well; names without suffix are in the order in which they were written.
const (
	stampLayout = "20060102-150405"
	gzSuffix    = ".gz"
	tmpSuffix   = ".tmp"
)

// isStamp says whether s is the time in a rotated log's name: 20060102-150405, with .000001 and so on if several bear the same second.
// (Package regexp would make the shim larger for this alone.)
func isStamp(s string) bool {
	s, number, numbered := strings.Cut(s, ".")
	date, clock, ok := strings.Cut(s, "-")
	return ok && digits(date, 8) && digits(clock, 6) && (!numbered || digits(number, 6))
}

func digits(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789") == ""
}

// leisure is how long a file must have taken to fill for older ones to be compressed: where files come faster they are
// removed before that has paid.
const leisure = time.Second

// rotated is a file that was the log.
type rotated struct {
	stamp       string
	plain, gzip bool // which of the two there are: both only between two steps of compression
}

// rotatedLogs returns the rotated files of the log at path, oldest first, and which of them are only half compressed.
func rotatedLogs(path string) (logs []rotated, unfinished []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries { // in the order of their names: <stamp> before <stamp>.gz, if not right before it
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		name, tmp := strings.CutSuffix(rest, tmpSuffix)
		name, gz := strings.CutSuffix(name, gzSuffix)
		switch {
		case !ok || !isStamp(name):
		case tmp:
			unfinished = append(unfinished, e.Name())
		default:
			at, found := slices.BinarySearchFunc(logs, name, func(r rotated, name string) int { return strings.Compare(r.stamp, name) })
			if !found {
				logs = slices.Insert(logs, at, rotated{stamp: name})
			}
			logs[at].plain = logs[at].plain || !gz
			logs[at].gzip = logs[at].gzip || gz
		}
	}
	return logs, unfinished, nil
}

// nextStamp names the file that is rotated now. Names ascend, whatever the clock does.
func nextStamp(now time.Time, last string) string {
	stamp := now.UTC().Format(stampLayout)
	if last == "" || stamp > last[:len(stampLayout)] {
		return stamp
	}
	second, number, _ := strings.Cut(last, ".")
	n, _ := strconv.Atoi(number) // "" is 0
	return fmt.Sprintf("%s.%06d", second, n+1)
}

// rotate makes room in the file: the present one gets another name, and those too many are removed. On failure it goes on
// with the present one, for as much again. It tells whether there is something to compress.
func (l *LogFile) rotate() (compress bool) {
	if size, ok := l.stat(); ok && size < l.size {
		l.size = size // somebody has truncated it
		return false
	}
	l.old.Lock()
	defer l.old.Unlock()
	took := l.now().Sub(l.begun)
	if err := l.replace(); err != nil {
		l.size = 0
		return false
	}
	return took >= leisure && l.limits.MaxFiles > 2
}

// replace is called with l.old held.
func (l *LogFile) replace() error {
	logs, _, err := rotatedLogs(l.path)
	if err != nil {
		return err
	}
	last := ""
	if len(logs) > 0 {
		last = logs[len(logs)-1].stamp
	}
	// Before the present one is added, so that there is never one too many.
	for _, r := range logs[:max(0, len(logs)-(l.limits.MaxFiles-2))] {
		if err := l.removeOld(r); err != nil {
			return err
		}
	}
	aside := l.oldPath(nextStamp(l.now(), last))
	if err := os.Rename(l.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Should the shim die here its successor undoes the renaming: see RepairLog.
	if err := l.reopen(); err != nil {
		return errors.Join(err, os.Rename(aside, l.path))
	}
	return nil
}

func (l *LogFile) oldPath(stamp string) string { return l.path + "." + stamp }

func (l *LogFile) removeOld(r rotated) error {
	for suffix, there := range map[string]bool{"": r.plain, gzSuffix: r.gzip} {
		if err := os.Remove(l.oldPath(r.stamp) + suffix); there && err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// RepairLog brings the log at path, which nobody writes any more, to the state before or after what its writer's death
// interrupted: a rotation or a compression. That there is no log is no error.
func RepairLog(path string) error {
	logs, unfinished, err := rotatedLogs(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, name := range unfinished {
		errs = append(errs, os.Remove(filepath.Join(filepath.Dir(path), name)))
	}
	for _, r := range logs {
		if r.plain && r.gzip {
			errs = append(errs, os.Remove(path+"."+r.stamp))
		}
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && len(logs) > 0 && !logs[len(logs)-1].gzip {
		errs = append(errs, os.Rename(path+"."+logs[len(logs)-1].stamp, path))
	}
	return errors.Join(errs...)
}
