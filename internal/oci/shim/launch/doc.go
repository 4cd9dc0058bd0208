// Package launch makes containers without an OCI runtime: by the system calls that a shimapi.Launch comes down to, made in the
// shim's own process.
//
// A runtime's binary costs two executions of a large program for each container, which is most of what a short container
// costs. Here nothing is executed but the container's own program:
//
//   - a thread of the shim's, which ends with that, takes leave of the shim's file system view, joins the pod's namespaces,
//     and puts the container's mounts together in a mount namespace of its own (container.go, mount.go, dev.go). All this is
//     ordinary Go;
//   - what only the new process can do (enter its cgroups, mount /proc of its PID namespace, give up its rights, load its
//     seccomp filter) is a list of system calls prepared beforehand (child.go, program.go), which the child makes between
//     its birth by clone3(CLONE_VFORK|CLONE_VM) and its execve.
//
// An exec in a container is the same without the mounts (exec.go).
//
// # What keeps the host safe
//
// Until its execve the child shares the shim's memory. The shim isn't dumpable, so that nobody without CAP_SYS_PTRACE over it
// can look there, and package native gives containers with that capability, or in PID namespaces shared with others, to an OCI runtime.
// The child closes all descriptors but its stdio before it goes to the container's working directory. Paths in the container are
// resolved by openat2 with RESOLVE_IN_ROOT and without magic links, and a device is looked at before it is opened, as the
// container's device rules don't bind the shim (paths.go). What is masked is covered by files opened on the host; what is written
// to /proc is written to the host's, which the container can't have changed.
//
// An exec's child is seen, and can be stopped, by the processes of the container before it executes anything. The shim doesn't
// wait for it: to Go's scheduler and garbage collector a birth is a blocking system call, and one that takes too long is
// killed (vfork.go).
//
// # Needs
//
// Linux 5.12 (mount_setattr), on amd64 or arm64. Supported tells.
package launch
