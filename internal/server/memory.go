package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settle gives back what only the start needed. Assembling the API leaves as
// much garbage as it leaves objects, and it runs through nearly all of a large
// program, most of which an errand that serves doesn't touch again.
func settle() error {
	debug.FreeOSMemory()
	return releaseProgram()
}

// releaseProgram unmaps the pages of this process's own program; those that
// are needed come back from the page cache, a few at a time.
func releaseProgram() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("release the program's pages: %w", err)
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("release the program's pages: %w", err)
	}
	var errs []error
	for _, r := range programRanges(maps, program) {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED)
		if errno != 0 {
			errs = append(errs, fmt.Errorf("release the program's pages: madvise: %w", errno))
		}
	}
	return errors.Join(errs...)
}

// addressRange is of virtual memory, [start, end).
type addressRange struct{ start, end uintptr }

// programRanges are the mappings of program that can't have been written to:
// they hold what the file holds, and dropping them loses nothing.
func programRanges(maps []byte, program string) []addressRange {
	var ranges []addressRange
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		// start-end perms offset device inode path
		f := strings.Fields(lines.Text())
		if len(f) != 6 || f[5] != program || !strings.HasPrefix(f[1], "r-") || !strings.HasSuffix(f[1], "p") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			ranges = append(ranges, addressRange{uintptr(start), uintptr(end)})
		}
	}
	return ranges
}
