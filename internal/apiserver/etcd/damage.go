package etcd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// explainStartError says what a user can do about a directory on which etcd
// doesn't start. A log whose last record was cut short by a crash isn't among
// these: etcd drops that record, which it never acknowledged, and starts.
func explainStartError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("start the store in %s: no space left on the device (it wants 64 MiB for its log): make room or choose another --data-dir: %w", dir, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("start the store: %s must be writable: %w", dir, err)
	case errors.Is(err, io.ErrUnexpectedEOF), damaged(err):
		return fmt.Errorf("start the store: the files in %s are damaged: restore a backup (etcdutl snapshot restore), or move the directory away to start empty: %w", dir, err)
	default:
		return fmt.Errorf("start the store in %s: %w", dir, err)
	}
}

// explainFailure says what a user can do about a member that failed while it
// ran.
func explainFailure(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the store in %s can't be written: no space left on the device: make room, then start again; what was acknowledged is kept: %w", dir, err)
	}
	return fmt.Errorf("the store in %s failed: %w", dir, err)
}

// damaged recognises errors of etcd's log and of its database, which carry no
// type in common.
func damaged(err error) bool {
	text := err.Error()
	for _, sign := range []string{
		"walpb: crc mismatch", "wal: ", "snap: crc mismatch", "invalid database", "checksum error", "version mismatch",
		"failed to recover v3 backend", "invalid wire-format data",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
