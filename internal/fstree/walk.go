package fstree

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Visit is called for an entry of a directory that is open, and says whether to go
// into it, which only a directory lets one do. It mustn't keep dir.
type Visit func(dir int, name string, st *unix.Stat_t) (enter bool, err error)

// Walk calls visit for all that is in a directory, in no order, and ends with the
// first error. It follows no link, and works at any depth: entries are reached by the
// directory that they lie in, and no more than some hundred of those are open at once.
// Containers may be at work in the tree: what vanishes meanwhile is left out, and so is
// what is beside it where so much was moved that there is no way back.
func Walk(root string, visit Visit) error {
	fd, err := unix.Open(root, walkFlags, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: root, Err: err}
	}
	w := walk{visit: visit}
	defer w.leaveAll()
	if err := w.enter(fd); err != nil {
		return &fs.PathError{Op: "walk", Path: root, Err: err}
	}
	for len(w.stages) > 0 {
		if err := w.step(); err != nil {
			return &fs.PathError{Op: "walk", Path: root, Err: err}
		}
	}
	return nil
}

const walkFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// walk is where a Walk is: its stages are the directories on the way there.
type walk struct {
	visit  Visit
	stages []stage
}

// stage is a directory that isn't done. The first ones may be closed, if there are many.
type stage struct {
	fd       int // -1 if closed
	dev, ino uint64
	left     []string // entries that are yet to be visited
}

// enter takes over a directory that is open.
func (w *walk) enter(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	var names []string
	if err == nil {
		names, err = readNames(fd)
	}
	if err != nil {
		_ = unix.Close(fd) // was only read
		return err
	}
	w.stages = append(w.stages, stage{fd: fd, dev: st.Dev, ino: st.Ino, left: names})
	if far := len(w.stages) - 1 - maxOpen; far >= 0 {
		w.stages[far].close()
	}
	return nil
}

func (s *stage) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // was only read
		s.fd = -1
	}
}

// readNames reads a directory's entries, by a descriptor of its own.
func readNames(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", walkFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // it was removed just now
	}
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(again), ".")
	defer func() { _ = dir.Close() }() // opened for reading only
	names, err := dir.Readdirnames(-1)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // likewise
	}
	return names, err
}

// step visits an entry, or leaves a directory in which there is none left.
func (w *walk) step() error {
	here := &w.stages[len(w.stages)-1]
	if len(here.left) == 0 {
		w.leave()
		return nil
	}
	name := here.left[len(here.left)-1]
	here.left = here.left[:len(here.left)-1]
	var st unix.Stat_t
	err := unix.Fstatat(here.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	enter, err := w.visit(here.fd, name, &st)
	if err != nil || !enter {
		return err
	}
	below, err := unix.Openat(here.fd, name, walkFlags, 0)
	switch {
	case err == nil:
		return w.enter(below)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // it isn't what it was
	}
	return err
}

// leave goes back to the directory above. If that was closed it is opened by way of this
// one's "..", and must be the same: somebody may have moved this one elsewhere.
func (w *walk) leave() {
	n := len(w.stages)
	here := &w.stages[n-1]
	if n > 1 && w.stages[n-2].fd < 0 && !w.stages[n-2].reopen(here.fd) {
		w.leaveAll()
		return
	}
	here.close()
	w.stages = w.stages[:n-1]
}

func (s *stage) reopen(below int) bool {
	fd, err := unix.Openat(below, "..", walkFlags, 0)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Dev != s.dev || st.Ino != s.ino {
		_ = unix.Close(fd) // was only read
		return false
	}
	s.fd = fd
	return true
}

func (w *walk) leaveAll() {
	for i := range w.stages {
		w.stages[i].close()
	}
	w.stages = nil
}
