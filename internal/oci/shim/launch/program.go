package launch

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is what a child does between its birth and its execve: system calls and nothing else.
type program struct {
	calls   []call
	results []int // of call i at i+1: what it returned, or its negative errno
	what    []string
	keep    []any // what the calls' pointers point to

	failed int // the number, from 1, of the call that failed, or nothingExecuted
	errno  syscall.Errno
}

// nothingExecuted is a program that came to its end: none of the paths tried could be executed.
const nothingExecuted = -1

// call is one system call.
type call struct {
	nr   uintptr
	args [6]uintptr
	// results has bit i set if args[i] isn't the argument but the number of the call whose result is.
	results uint8
	// may: a failure doesn't matter.
	may bool
	// skip, if over 0, makes a failure for want of the file skip so many further calls.
	skip int
	// unless is the number of a call whose success makes this one unnecessary.
	unless int
}

// result stands for what an earlier call returns.
type result int

// add appends a call; what says in words what it does. An argument is an int, a uintptr, a result, a string, or a pointer in the form
// of a pinned. It returns the call's result.
func (p *program) add(what string, nr uintptr, args ...any) result {
	c := call{nr: nr}
	for i, a := range args {
		switch v := a.(type) {
		case int:
			c.args[i] = uintptr(v)
		case uintptr:
			c.args[i] = v
		case uint64:
			c.args[i] = uintptr(v)
		case result:
			c.args[i] = uintptr(v)
			c.results |= 1 << i
		case string:
			c.args[i] = p.text(v)
		case pinned:
			c.args[i] = v.address
		default:
			panic(fmt.Sprintf("launch: a system call's argument can't be a %T", a))
		}
	}
	p.calls, p.what = append(p.calls, c), append(p.what, what)
	return result(len(p.calls))
}

// last is the call added last, to be made conditional.
func (p *program) last() *call { return &p.calls[len(p.calls)-1] }

// seal makes the program fit to be run.
func (p *program) seal() { p.results = make([]int, len(p.calls)+1) }

// failure tells which call failed in the child, nil if none did.
func (p *program) failure() error {
	if p.failed <= 0 {
		return nil
	}
	return &callError{what: p.what[p.failed-1], errno: p.errno}
}

// callError is a system call that failed in a child.
type callError struct {
	what  string
	errno syscall.Errno
}

func (e *callError) Error() string { return e.what + ": " + e.errno.Error() }

func (e *callError) Unwrap() error { return e.errno }

// pinned is the address of something that the program keeps. Go's heap doesn't move.
type pinned struct{ address uintptr }

// pin keeps v and returns its address.
func pin[T any](p *program, v *T) pinned {
	p.keep = append(p.keep, v)
	return pinned{uintptr(unsafe.Pointer(v))}
}

// pinAll keeps a list and returns its address, 0 for an empty one.
func pinAll[T any](p *program, list []T) pinned {
	if len(list) == 0 {
		return pinned{}
	}
	p.keep = append(p.keep, list)
	return pinned{uintptr(unsafe.Pointer(&list[0]))}
}

// text is the address of a C string. Who takes text from outside sees to it that it has no NUL.
func (p *program) text(s string) uintptr {
	b := append([]byte(s), 0)
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// texts is the address of an array of C strings.
func (p *program) texts(list []string) pinned {
	pointers := make([]uintptr, len(list)+1)
	for i, s := range list {
		pointers[i] = p.text(s)
	}
	return pinAll(p, pointers)
}

// write adds a write of text to the file with a descriptor.
func (p *program) write(what string, fd any, text string) {
	p.add(what, unix.SYS_WRITE, fd, text, len(text))
}
