package launch

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Filter is a seccomp filter, ready to be loaded.
type Filter struct {
	flags uint
	prog  unix.SockFprog
}

// sizeofFilter is that of struct sock_filter.
const sizeofFilter = 8

// Filter makes one of an array of struct sock_filter. It returns nil for an empty one, and the same Filter for the same array:
// nearly all containers have the same.
func (l *Launcher) Filter(program []byte, flags uint) *Filter {
	n := len(program) / sizeofFilter
	if n == 0 {
		return nil
	}
	key := fmt.Sprint(flags, " ") + string(program)
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.filters[key]; ok {
		return f
	}
	list := make([]unix.SockFilter, n)
	for i := range list {
		b := program[i*sizeofFilter:]
		list[i] = unix.SockFilter{Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
	}
	f := &Filter{flags: flags, prog: unix.SockFprog{Len: uint16(min(n, math.MaxUint16)), // of too many the kernel takes none
		Filter: &list[0]}}
	if len(l.filters) >= maxFilters {
		clear(l.filters)
	}
	l.filters[key] = f
	return f
}

// maxFilters bounds what is remembered; containers hold theirs themselves.
const maxFilters = 64
