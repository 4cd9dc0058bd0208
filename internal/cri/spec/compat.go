package spec

import (
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// loaders32 are where 32-bit x86 programs find their dynamic loader.
var loaders32 = [...]string{"/lib/ld-linux.so.2", "/lib/ld-musl-i386.so.1"}

// runs32 says whether the container may well run 32-bit programs: it has a
// loader for them, or its command is one. A filter for them costs 5 ms of CPU
// at every start, and few images have any use for it.
func runs32(root string, args, env []string) bool {
	dir, err := os.Open(root)
	if err != nil {
		return true // what can't be known mustn't be refused
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	for _, l := range loaders32 {
		if f, err := openInRoot(dir, l); err == nil {
			f.Close() //nolint:errcheck // opened for reading
			return true
		}
	}
	for _, candidate := range executables(args[0], env) {
		if f, err := openInRoot(dir, candidate); err == nil {
			is32 := elf32(f)
			f.Close() //nolint:errcheck // opened for reading
			return is32
		}
	}
	return false
}

// openInRoot opens a file, following links as the container would.
func openInRoot(root *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// executables is where a command is looked for.
func executables(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	var out []string
	for _, e := range env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, d := range strings.Split(dirs, ":") {
				out = append(out, path.Join("/", d, command))
			}
		}
	}
	return out
}

// elf32 reads the class in a program's header.
func elf32(f io.Reader) bool {
	const class32 = 1
	var header [5]byte
	_, err := io.ReadFull(f, header[:])
	return err == nil && string(header[:4]) == "\x7fELF" && header[4] == class32
}
