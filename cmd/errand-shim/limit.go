package main

import (
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFilesEnv has the soft limit of open files that the shim was started with.
const openFilesEnv = "ERRAND_SHIM_OPEN_FILES"

// inheritedOpenFiles is the soft limit of open files that a program started by this one gets, "" if it can't be told. Go raises
// its own to the hard limit before main, for itself only (go.dev/issue/46279): containers, which the shim starts in its own
// way, mustn't get that, as programs are slow that close all descriptors there may be. Go lowers it again for what it starts, and keeps to
// itself to what; so this starts something, and looks at it before it has executed a single instruction.
func inheritedOpenFiles() string {
	runtime.LockOSThread() // only the thread that traces may let go
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(self, []string{"errand-shim", "--version"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return "" // tracing is forbidden
	}
	var limit unix.Rlimit
	var status syscall.WaitStatus
	_, err = syscall.Wait4(pid, &status, 0, nil)
	stopped := err == nil && status.Stopped()
	if stopped {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	if err != nil || !stopped {
		return ""
	}
	return strconv.FormatUint(limit.Cur, 10)
}
