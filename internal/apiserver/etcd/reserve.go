package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserveBytes are kept for the database beyond what it holds when the member starts. A disk fills up with images, logs and pods' files;
// with this room (and the log's, whose segments etcd allocates 64 MiB ahead) those are refused long before the store has to give up.
const reserveBytes = 16 << 20

// databasePath is where etcd keeps a member's database.
func databasePath(dir string) string { return filepath.Join(dir, "member", "snap", "db") }

// reserveSpace allocates the blocks that a database with inUse bytes in use will grow into: bbolt makes its file longer without them. A
// file system that can't do that, or has no room for it, is no reason not to start.
func reserveSpace(dir string, inUse int64) (err error) {
	f, err := os.OpenFile(databasePath(dir), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("reserve space for the database: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Wherever in the file the pages in use are, of this range at least reserveBytes are free ones.
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, inUse+reserveBytes)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return nil
	case err != nil:
		return fmt.Errorf("reserve space for the database: %w", err)
	}
	return nil
}
