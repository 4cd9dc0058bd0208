package keptlogs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// The names of files: <run>.json is a run's record, <run>.log and what Run.Files has
// behind it its log; <Job's UID>.gone tells when a Job went. A file that is being
// written ends in .tmp.
const (
	recordSuffix = ".json"
	logSuffix    = ".log"
	goneSuffix   = ".gone"
	tmpSuffix    = ".tmp"
)

// rotatedName is what follows a log's name in that of a rotated file, whoever rotated
// it.
var rotatedName = regexp.MustCompile(`^(\.\d{8}-\d{6}(\.\d{6})?)(\.gz)?$`)

// block is what a file takes of a disk at least, and in multiples of what.
const block = 4096

// store is the directory. Nothing of it is brought to the disk at once: after a power
// cut what was written last may be missing, or empty, and is then removed.
type store struct{ dir string }

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// found is a run that was found on disk.
type found struct {
	name string
	run  *Run
}

// contents is what a store holds.
type contents struct {
	runs []found // those that are whole, the oldest first
	gone map[types.UID]time.Time
	// leftovers are the names of all files that are neither's.
	leftovers []string
}

// load reads the directory.
func (s *store) load() (contents, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return contents{}, err
	}
	files := make(map[string]bool, len(entries)) // whether there is a use for them
	for _, e := range entries {
		files[e.Name()] = false
	}
	c := contents{runs: s.loadRuns(files)}
	c.gone = s.loadGone(files, c.runs)
	for file, used := range files {
		if !used {
			c.leftovers = append(c.leftovers, file)
		}
	}
	return c, nil
}

// loadRuns returns the runs that are whole, and marks their files as used.
func (s *store) loadRuns(files map[string]bool) (runs []found) {
	for file := range files {
		name, ok := strings.CutSuffix(file, recordSuffix)
		if !ok {
			continue
		}
		run := s.readRecord(name)
		if run == nil || slices.ContainsFunc(run.Files, func(f string) bool { _, there := files[name+logSuffix+f]; return !there }) {
			continue
		}
		files[file] = true
		for _, f := range run.Files {
			files[name+logSuffix+f] = true
		}
		runs = append(runs, found{name, run})
	}
	slices.SortFunc(runs, func(a, b found) int {
		return cmp.Or(a.run.KeptAt.Compare(b.run.KeptAt), strings.Compare(a.name, b.name))
	})
	return runs
}

// loadGone returns when those Jobs went that there are runs of, and marks the notes
// of that as used.
func (s *store) loadGone(files map[string]bool, runs []found) map[types.UID]time.Time {
	gone := map[types.UID]time.Time{}
	for _, r := range runs {
		uid := r.run.JobUID
		file := string(uid) + goneSuffix
		if used, there := files[file]; used || !there {
			continue
		}
		text, err := os.ReadFile(s.path(file))
		if err != nil {
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, string(text)); err == nil {
			gone[uid], files[file] = at, true
		}
	}
	return gone
}

// readRecord returns nil for what isn't the record of the run of that name.
func (s *store) readRecord(name string) *Run {
	data, err := os.ReadFile(s.path(name + recordSuffix))
	if err != nil {
		return nil
	}
	run := &Run{}
	if err := json.Unmarshal(data, run); err != nil {
		return nil
	}
	if own, err := run.name(); err != nil || own != name {
		return nil
	}
	return run
}

// link links the files of a log, whose path log is, and returns their suffixes in
// order and what they take of the disk together with a record. It may be that there
// are none: what couldn't be started has said nothing.
func (s *store) link(name, log string) (files []string, size int64, err error) {
	for {
		if files, err = logFiles(log); err != nil {
			return nil, 0, err
		}
		size = block
		for _, f := range files {
			var n int64
			if n, err = s.linkOne(log+f, s.path(name+logSuffix+f)); err != nil {
				break
			}
			size += n
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return files, size, err
		}
		if _, gone := os.Stat(s.dir); gone != nil {
			return files, size, gone
		}
		// It was just being compressed, and has another name now.
		if err := s.unlink(name, files); err != nil {
			return nil, 0, err
		}
	}
}

func (s *store) linkOne(from, to string) (size int64, err error) {
	if err := os.Link(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	// The owner's alone, as all of the data directory: collectors had their time.
	info, err := os.Lstat(to)
	if err == nil && info.Mode().IsRegular() {
		err = os.Chmod(to, 0o600)
	} else if err == nil {
		err = fmt.Errorf("%s is not a regular file", from)
	}
	if err != nil {
		return 0, err
	}
	return (info.Size() + block - 1) / block * block, nil
}

// logFiles lists the suffixes of a log's files in the order in which they were
// written. Of one that is there compressed and not, the latter counts.
func logFiles(log string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(log))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stems := map[string]string{}
	current := false
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(log))
		if ok && rest == "" {
			current = true
		} else if m := rotatedName.FindStringSubmatch(rest); ok && m != nil && (stems[m[1]] == "" || m[3] == "") {
			stems[m[1]] = rest
		}
	}
	files := make([]string, 0, len(stems)+1)
	for _, f := range stems {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b string) int {
		return strings.Compare(rotatedName.FindStringSubmatch(a)[1], rotatedName.FindStringSubmatch(b)[1])
	})
	if current {
		files = append(files, "")
	}
	return files, nil
}

// record writes a run's record, which makes it kept.
func (s *store) record(name string, run *Run) error {
	data, err := json.Marshal(run)
	if err != nil {
		return err
	}
	return s.write(name+recordSuffix, data)
}

// write writes a file as a whole.
func (s *store) write(file string, data []byte) error {
	tmp := s.path(file + tmpSuffix)
	err := os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, s.path(file))
	}
	if err != nil {
		return errors.Join(err, removeIfThere(tmp))
	}
	return nil
}

// remove removes a run, its record first.
func (s *store) remove(name string, files []string) error {
	if err := removeIfThere(s.path(name + recordSuffix)); err != nil {
		return err
	}
	return s.unlink(name, files)
}

// unlink removes the files of a run's log.
func (s *store) unlink(name string, files []string) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, removeIfThere(s.path(name+logSuffix+f)))
	}
	return errors.Join(errs...)
}

// noteGone notes when a Job went.
func (s *store) noteGone(uid types.UID, at time.Time) error {
	return s.write(string(uid)+goneSuffix, []byte(at.Format(time.RFC3339Nano)))
}

func (s *store) forgetGone(uid types.UID) error {
	return removeIfThere(s.path(string(uid) + goneSuffix))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
