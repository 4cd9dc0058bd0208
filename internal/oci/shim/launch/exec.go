package launch

import (
	"fmt"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// ExecRequest is what Exec starts a process from.
type ExecRequest struct {
	// PidFD is the container's first process.
	PidFD    int
	Process  *shimapi.Process
	Seccomp  *Filter // the container's
	Files    [3]int
	Terminal bool
	Cgroups  *cgroup.Membership
	// CgroupNamespace: the container has one of its own.
	CgroupNamespace bool
}

// Exec starts a process in a container that Start has made. Errors: as Start's.
func (l *Launcher) Exec(req ExecRequest) (p Process, err error) {
	onThread(func() { p, err = l.execHere(req) })
	return p, execing.explain(err)
}

func (l *Launcher) execHere(req ExecRequest) (Process, error) {
	if err := enterContainer(req); err != nil {
		return Process{}, failed(err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Process{}, failed(err)
	}
	defer unix.Close(root)
	req.Process.Env = l.withHome(root, req.Process.Env, req.Process.UID)
	b := &child{
		program: &program{}, launcher: l, root: root, process: req.Process, seccomp: req.Seccomp, files: req.Files,
		cgroups: req.Cgroups,
	}
	if req.CgroupNamespace {
		// Once it is in its cgroup: from within a namespace the kernel lets nobody into
		// a cgroup, if the one that he leaves is outside (nsdelegate, systemd's default).
		b.inside = func() { b.add("join the cgroup namespace", unix.SYS_SETNS, uintptr(req.PidFD), unix.CLONE_NEWCGROUP) }
	}
	if req.Terminal {
		if b.tty, _, err = l.newTerminal(root, req.Process); err != nil {
			return Process{}, failed(err)
		}
		defer b.tty.close()
	}
	pid, err := b.start(0)
	if err != nil {
		return Process{}, err
	}
	p := Process{Pid: pid, Terminal: -1}
	if b.tty != nil {
		p.Terminal, b.tty.master = b.tty.master, -1
	}
	return p, nil
}

// enterContainer has this thread join the container's namespaces, all but that of cgroups; the PID namespace is its children's.
func enterContainer(req ExecRequest) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the file system view: %w", err)
	}
	const kinds = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID
	if err := unix.Setns(req.PidFD, kinds); err != nil {
		return fmt.Errorf("join the container's namespaces: %w", err)
	}
	return nil
}
