//go:build node

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/memoryfs"
)

// onDisk returns the path of a directory to be made that isn't in memory.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp"} {
		if on, err := memoryfs.Look(parent); err != nil || on.Memory {
			continue
		}
		dir, err := os.MkdirTemp(parent, "runtimedir-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return filepath.Join(dir, "run")
	}
	t.Fatal("this test needs a folder that isn't in memory: neither the temporary one nor /var/tmp is")
	return ""
}

func mountsAt(t *testing.T, path string) int {
	t.Helper()
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The runtime directory is in memory where nobody has made it so, with what was
// in it before still there, and nothing is left of it that isn't needed.
func TestTheRuntimeDirectoryIsInMemory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(t *testing.T, path string)
		pods   bool
		mounts int
	}{
		{name: "there is none", before: func(*testing.T, string) {}, pods: true, mounts: 1},
		{name: "it is empty", before: func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, pods: true, mounts: 1},
		{name: "something is in it", before: func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			touch(t, filepath.Join(path, "shim.sock"))
		}, pods: true, mounts: 0},
		{name: "there are no pods", before: func(*testing.T, string) {}, pods: false, mounts: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names := instance.Names{RuntimeDir: onDisk(t)}
			path := names.RuntimeDir
			tc.before(t, path)
			t.Cleanup(func() {
				if err := removeRuntimeDir(names); err != nil {
					t.Error(err)
				}
			})
			for range 2 { // an errand, and the one after it was killed
				if err := makeRuntimeDir(path, tc.pods); err != nil {
					t.Fatal(err)
				}
			}
			if n := mountsAt(t, path); n != tc.mounts {
				t.Fatalf("%d file systems are mounted, want %d", n, tc.mounts)
			}
			shim := filepath.Join(path, "shim.sock")
			touch(t, shim)
			leaveRuntimeDir(names)
			if _, err := os.Stat(shim); err != nil {
				t.Fatalf("what goes on has lost its socket: %v", err)
			}
			if err := os.Remove(shim); err != nil {
				t.Fatal(err)
			}
			leaveRuntimeDir(names)
			if _, err := os.Stat(path); !os.IsNotExist(err) || mountsAt(t, path) != 0 {
				t.Errorf("it is left, with %d mounts, though nothing is in it: %v", mountsAt(t, path), err)
			}
		})
	}
}

// refuseMounts has this thread's mounts fail, as a security module or a container's
// seccomp profile does. The thread ends with its goroutine, which stays locked to it.
func refuseMounts(with unix.Errno) error {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MOUNT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(with)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("filter mounts: %w", errno)
	}
	return nil
}

// Who may not mount goes without, whoever forbids it: the kernel and AppArmor don't
// say so alike. What fails otherwise is told.
func TestARuntimeDirectoryWhereNothingMayBeMounted(t *testing.T) {
	for errno, ok := range map[unix.Errno]bool{unix.EPERM: true, unix.EACCES: true, unix.ENOMEM: false} {
		path := onDisk(t)
		done := make(chan error)
		go func() {
			if err := refuseMounts(errno); err != nil {
				done <- err
				return
			}
			done <- makeRuntimeDir(path, true)
		}()
		err := <-done
		if (err == nil) != ok || !ok && !errors.Is(err, errno) || mountsAt(t, path) != 0 {
			t.Errorf("mounts fail by %v: %v", errno, err)
		}
	}
}

// What is mounted goes with a drain, whatever is in it.
func TestADrainTakesTheRuntimeDirectoryAway(t *testing.T) {
	names := instance.Names{RuntimeDir: onDisk(t)}
	if err := makeRuntimeDir(names.RuntimeDir, true); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(names.RuntimeDir, "left"))
	if err := removeRuntimeDir(names); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(names.RuntimeDir); !os.IsNotExist(err) || mountsAt(t, names.RuntimeDir) != 0 {
		t.Errorf("it is left: %v", err)
	}
}
