package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

// The kernel's struct sigaction and its dispositions (sigaction(2)), on the 64-bit machines that Go runs Linux on.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigDfl = 0
	sigIgn = 1
	nsig   = 64
)

// heedSignals undoes what the caller ignores, be it by nohup or by a language's runtime: ignored signals are inherited
// across exec, and a container's processes must start with none. The standard library can't: os/signal knows nothing of
// signals 32 and 33, which the C library keeps to itself, and leaves an ignored SIGHUP as it is.
func heedSignals() error {
	for sig := 1; sig <= nsig; sig++ {
		action, err := disposition(sig)
		if err != nil {
			return err
		}
		if action.handler != sigIgn {
			continue
		}
		if err := dispose(sig, sigaction{handler: sigDfl}); err != nil {
			return err
		}
	}
	return nil
}

func disposition(sig int) (sigaction, error) {
	var old sigaction
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(old.mask), 0, 0)
	if errno != 0 {
		return old, fmt.Errorf("read what signal %d does: %w", sig, errno)
	}
	return old, nil
}

func dispose(sig int, action sigaction) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
	if errno != 0 {
		return fmt.Errorf("set what signal %d does: %w", sig, errno)
	}
	return nil
}
