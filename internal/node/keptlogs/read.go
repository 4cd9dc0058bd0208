package keptlogs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Runs returns the runs that are kept of all Jobs of that name, those that went too,
// in the order in which they were kept.
func (k *Keeper) Runs(ctx context.Context, namespace, job string) ([]Run, error) {
	if err := k.ready(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	runs := []Run{}
	for e := k.byAge.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*entry); r.Namespace == namespace && r.JobName == job {
			runs = append(runs, *r.Run)
		}
	}
	return runs, nil
}

// Open opens the log of a run in that namespace, from its first line that is kept to
// the last, in the runtime's format. The error is fs.ErrNotExist if it isn't kept.
func (k *Keeper) Open(ctx context.Context, namespace string, pod types.UID, container string, restartCount int32) (io.ReadCloser, error) {
	if err := k.ready(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.runs[nameOf(pod, container, restartCount)]
	if e == nil || e.Namespace != namespace {
		return nil, fmt.Errorf("no log is kept of run %d of container %q of the pod with UID %q: %w", restartCount, container, pod, fs.ErrNotExist)
	}
	log := &log{}
	for _, f := range e.Files {
		if err := log.append(k.store.path(e.name + logSuffix + f)); err != nil {
			return nil, errors.Join(err, log.Close())
		}
	}
	log.Reader = io.MultiReader(log.parts...)
	return log, nil
}

// log reads the files of a log one after the other. All are open from the beginning,
// so that they can be read to the end even if they are removed meanwhile.
type log struct {
	io.Reader
	files []*os.File
	parts []io.Reader
}

func (l *log) append(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	l.files = append(l.files, f)
	var part io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if part, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	l.parts = append(l.parts, part)
	return nil
}

// Close implements io.Closer.
func (l *log) Close() error {
	var errs []error
	for _, f := range slices.Backward(l.files) {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
