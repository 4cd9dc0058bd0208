package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/oci/shim/launch"
	"errand.dev/errand/internal/portholder"
)

// Space below which there is soon none left for images and logs, and below
// which there is none now. Bytes.
const (
	lowSpace = 5 << 30
	noSpace  = 512 << 20
)

func ociRuntime(ctx context.Context, h Host) Finding {
	err := launch.Supported()
	return runtimeFinding(ctx, h, err == nil || errors.Is(err, unix.EPERM) && os.Geteuid() != 0)
}

// runtimeFinding tells of the OCI runtimes, of which there must be one where errand
// doesn't launch containers itself.
func runtimeFinding(ctx context.Context, h Host, launches bool) Finding {
	remedy := fmt.Sprintf("install %s or newer, or build errand's own with make runc, or name one with --runtime", h.OldestRuntimes)
	switch {
	case len(h.TooOldNamed) > 0:
		return fail(remedy, "%s", strings.Join(h.TooOldNamed, "; "))
	case len(h.Runtimes) == 0:
		why := strings.Join(h.PassedOver, "; ")
		if why == "" {
			why = "none was found"
		}
		if !launches {
			return fail(remedy, "%s", why)
		}
		return warn(remedy, "%s: what errand doesn't start itself can't run, such as privileged pods", why)
	}
	var names, lines []string
	for name := range h.Runtimes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		out, err := exec.CommandContext(ctx, h.Runtimes[name], "--version").Output()
		if err != nil {
			return fail("name one that works with --runtime", "%s doesn't run: %v", h.Runtimes[name], err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		lines = append(lines, fmt.Sprintf("%s at %s", first, h.Runtimes[name]))
	}
	for _, old := range h.PassedOver {
		lines = append(lines, old+", and not used")
	}
	return ok("%s", strings.Join(lines, "; "))
}

func shim(_ context.Context, h Host) Finding {
	if h.Shim == "" {
		return fail("install it beside errand, or name it with --shim", "it is neither beside errand nor in $PATH")
	}
	info, err := os.Stat(h.Shim)
	if err != nil {
		return fail("install it beside errand, or name it with --shim", "%v", err)
	}
	if info.Mode()&0o111 == 0 {
		return fail("chmod +x "+h.Shim, "%s is not executable", h.Shim)
	}
	return ok("%s", h.Shim)
}

// launcher says who starts ordinary containers.
func launcher(context.Context, Host) Finding {
	return launcherFinding(launch.Supported(), os.Geteuid() == 0)
}

func launcherFinding(err error, root bool) Finding {
	remedy := "use Linux 5.12 or newer on amd64 or arm64"
	switch {
	case err == nil:
		return ok("errand starts ordinary containers itself")
	case errors.Is(err, unix.EPERM) && !root:
		return warn("run errand doctor as root", "can't try without root")
	case errors.Is(err, unix.EPERM):
		remedy = "give errand CAP_SYS_ADMIN, and no seccomp filter that forbids the call"
	case errors.Is(err, launch.ErrDumpable):
		remedy = "sysctl fs.suid_dumpable=2"
	}
	return warn(remedy+": a container then costs a tenth of the CPU", "an OCI runtime starts all containers: %v", err)
}

func dataDirectory(_ context.Context, h Host) Finding {
	holder, held, err := datadir.HeldBy(h.DataDir)
	switch {
	case errors.Is(err, os.ErrPermission):
		return warn("run errand doctor as root", "%s is its owner's alone", h.DataDir)
	case err != nil:
		return fail("name another --data-dir", "%v", err)
	}
	err = datadir.CheckFormat(h.DataDir)
	var newer *datadir.NewerError
	switch {
	case errors.As(err, &newer):
		return fail("run the errand that made it, or name another --data-dir",
			"%s has format %d, made by a newer errand; this one knows formats up to %d", newer.Path, newer.Format, newer.Max)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fail("name another --data-dir", "%v", err)
	case held:
		return ok("%s, held by %s", h.DataDir, holder)
	}
	if _, err := os.Stat(h.DataDir); err != nil {
		return ok("%s will be made", h.DataDir)
	}
	return ok("%s, free", h.DataDir)
}

func disk(_ context.Context, h Host) Finding {
	path := h.DataDir
	if _, err := os.Stat(path); err != nil {
		path = existingParent(path)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return warn("make sure that there are some GiB", "can't tell the free space of %s: %v", path, err)
	}
	free := s.Bavail * uint64(s.Bsize)
	gib := float64(free) / (1 << 30)
	switch {
	case free < noSpace:
		return fail("make room, or move the --data-dir", "%.1f GiB free at %s", gib, path)
	case free < lowSpace:
		return warn("make room, or move the --data-dir", "%.1f GiB free at %s: images and logs may soon fill it", gib, path)
	}
	return ok("%.1f GiB free at %s", gib, path)
}

func port(ctx context.Context, h Host) Finding {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", h.Listen)
	if err == nil {
		return closeListener(l, h.Listen)
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return fail("name another --listen", "can't listen at %s: %v", h.Listen, err)
	}
	who := portholder.Find(h.Root, h.Listen)
	if holder, held, err := datadir.HeldBy(h.DataDir); err == nil && held && (who.PID == 0 || who.PID == holder.PID) {
		return ok("%s is in use by the running errand, %s", h.Listen, holder)
	}
	return fail("stop it, or name another --listen", "%s is taken by %s", h.Listen, who)
}

func closeListener(l net.Listener, addr string) Finding {
	if err := l.Close(); err != nil {
		return warn("try again", "%s could not be given back: %v", addr, err)
	}
	return ok("%s is free", addr)
}

func openFiles(context.Context, Host) Finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return warn("make sure that ulimit -Hn is 65536 or more", "%v", err)
	}
	if l.Max < 65536 {
		return warn("raise it (ulimit -Hn 1048576, or LimitNOFILE= in the unit)", "at most %d: enough for about %d containers", l.Max, l.Max/8)
	}
	return ok("at most %d", l.Max)
}

func inotify(_ context.Context, h Host) Finding {
	path := filepath.Join(h.Root, "/proc/sys/fs/inotify/max_user_instances")
	b, err := os.ReadFile(path)
	if err != nil {
		return warn("use a kernel with inotify", "%v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return warn("look at it", "%s holds %q", path, b)
	}
	if n < 128 {
		return warn("sysctl fs.inotify.max_user_instances=8192", "at most %d instances: as many kubectl logs -f at once", n)
	}
	return ok("at most %d instances", n)
}
