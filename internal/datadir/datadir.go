// Package datadir owns the data directory as a whole: one errand at a time
// holds it, and only an errand that knows its format touches it.
//
// What stands inside belongs to the components: each gets a path of its own
// from here and is the only one to write there.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"errand.dev/errand/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// Format is the version of the layout that this errand writes and reads. It
// grows only when an older errand would misread what a newer one wrote.
const Format = 1

// Env is the environment variable that names a data directory where no flag does.
const Env = "ERRAND_DATA_DIR"

const (
	lockFile   = "lock"
	formatFile = "format"
)

// Dir is a data directory that this process holds. Its methods only name
// paths; the components make them.
type Dir struct {
	root string
	lock *os.File
}

// HeldError says that another process holds the data directory.
type HeldError struct {
	Path   string
	Holder Holder
}

// Holder is the process that holds a data directory.
type Holder struct {
	// PID is 0 where nobody holds it, or where it isn't known who.
	PID int
	// Command is how it was called, without its flags: "errand image pull"; empty
	// where it isn't known.
	Command string
}

func (h Holder) String() string {
	switch {
	case h.PID == 0:
		return "another process"
	case h.Command == "":
		return fmt.Sprintf("process %d", h.PID)
	}
	return fmt.Sprintf("process %d (%s)", h.PID, h.Command)
}

// Serves says whether the holder is an errand serve or an errand cri, which stay, as far as is known.
func (h Holder) Serves() bool {
	return h.Command == "" || strings.HasSuffix(h.Command, " serve") || strings.HasSuffix(h.Command, " cri")
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("data directory %s is held by %s: stop it first, or give this one another --data-dir", e.Path, e.Holder)
}

// NewerError says that a newer errand wrote the data directory.
type NewerError struct {
	Path        string
	Format, Max int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("data directory %s has format %d, made by a newer errand; this one knows formats up to %d: run the newer errand, or give this one another --data-dir", e.Path, e.Format, e.Max)
}

// AbsentError says that there is no errand at a path. It is an fs.ErrNotExist.
type AbsentError struct{ Path string }

func (e *AbsentError) Error() string {
	return fmt.Sprintf("there is no errand at %s: start one with errand serve, or name another's data directory by --data-dir or $%s", e.Path, Env)
}

// Is makes it an fs.ErrNotExist.
func (e *AbsentError) Is(target error) bool { return target == fs.ErrNotExist }

// IsAbsent says of an error about a file of a data directory that it isn't there:
// neither it nor, maybe, the directory.
func IsAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// Open makes the directory where it is missing (0700), locks it for this
// process and checks its format. It returns a *HeldError or a *NewerError
// where that is the reason. The lock ends with Close or with the process,
// however that ends.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w", path, err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", forUser(err))
	}
	lock, err := acquire(abs)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: abs, lock: lock}
	if err := d.checkFormat(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// OpenExisting is Open for who has no use for a directory without an errand in
// it: it makes nothing, and returns an *AbsentError.
func OpenExisting(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, formatFile)); IsAbsent(err) {
		return nil, &AbsentError{Path: path}
	}
	return Open(path)
}

// forUser adds what to do where no data directory can be.
func forUser(err error) error {
	const elsewhere = ", or give this another --data-dir"
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return fmt.Errorf("%w: run this with sudo, or give it a --data-dir of your own, such as ~/.errand", err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w, but a file: move it away%s", err, elsewhere)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: make it writable%s", err, elsewhere)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: free some%s", err, elsewhere)
	}
	return err
}

func acquire(root string) (*os.File, error) {
	path := filepath.Join(root, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data directory's lock: %w", forUser(err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &HeldError{Path: root, Holder: readHolder(path)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The content is for the message of the next comer; the lock itself is the kernel's.
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"+command(os.Args)+"\n"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// command is how a process was called, up to its first flag and at most two
// words long: what follows is nobody's business.
func command(argv []string) string {
	words := []string{filepath.Base(argv[0])}
	for _, a := range argv[1:min(len(argv), 3)] {
		if strings.HasPrefix(a, "-") {
			break
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

func readHolder(path string) Holder {
	b, err := os.ReadFile(path)
	if err != nil {
		return Holder{}
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return Holder{}
	}
	return Holder{PID: pid, Command: strings.TrimSpace(rest)}
}

func (d *Dir) checkFormat() error {
	err := CheckFormat(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return atomicfile.Write(filepath.Join(d.root, formatFile), []byte(strconv.Itoa(Format)+"\n"), 0o600)
	}
	return err
}

// CheckFormat says whether this errand knows the format of the data directory
// at path; it changes nothing. Errors: *NewerError, fs.ErrNotExist where there
// is no errand's directory.
func CheckFormat(path string) error {
	file := filepath.Join(path, formatFile)
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the data directory's format: %w", err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s should hold a number, but holds %q: the data directory is damaged, or isn't errand's", file, strings.TrimSpace(string(b)))
	}
	if have > Format {
		return &NewerError{Path: path, Format: have, Max: Format}
	}
	return nil
}

// Root is the data directory's absolute path.
func (d *Dir) Root() string { return d.root }

// Path is the path of a component's part of the directory.
func (d *Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// Close gives the directory up.
func (d *Dir) Close() error { return d.lock.Close() }

// HeldBy is the process that holds the data directory at path; ok is false
// where none does.
func HeldBy(path string) (_ Holder, ok bool, err error) {
	lock := filepath.Join(path, lockFile)
	f, err := os.OpenFile(lock, os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("open the data directory's lock: %w", err)
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return readHolder(lock), true, nil
	case err != nil:
		return Holder{}, false, fmt.Errorf("lock %s: %w", lock, err)
	}
	return Holder{}, false, nil
}
