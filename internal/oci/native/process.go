package native

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

const defaultUmask = 0o022

// Process translates a process; its filter is the container's. Errors: *Unsupported.
func (t *Translator) Process(p *specs.Process) (*shimapi.Process, error) {
	for what, asked := range map[string]bool{
		"process.selinuxLabel":    p.SelinuxLabel != "",
		"process.commandLine":     p.CommandLine != "",
		"process.scheduler":       p.Scheduler != nil,
		"process.ioPriority":      p.IOPriority != nil,
		"process.execCPUAffinity": p.ExecCPUAffinity != nil,
	} {
		if asked {
			return nil, unsupported("%s", what)
		}
	}
	env, err := environment(p.Env)
	if err != nil {
		return nil, err
	}
	out := &shimapi.Process{
		Args: p.Args, Env: env, Cwd: p.Cwd, UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids,
		Umask: defaultUmask, NoNewPrivs: p.NoNewPrivileges, OOMScoreAdj: p.OOMScoreAdj, AppArmor: p.ApparmorProfile,
	}
	if p.User.Umask != nil {
		out.Umask = *p.User.Umask
	}
	if p.ConsoleSize != nil {
		out.Rows, out.Columns = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	if err := capabilities(out, p.Capabilities); err != nil {
		return nil, err
	}
	if err := rlimits(out, p.Rlimits); err != nil {
		return nil, err
	}
	return out, nil
}

// environment leaves the last of several values of a variable: of which a program takes the first, another the last, and runtimes
// agree on the last. An empty $HOME counts as none.
func environment(list []string) ([]string, error) {
	last := map[string]int{}
	for i, e := range list {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return nil, unsupported("the environment variable %q", e)
		}
		last[name] = i
	}
	out := make([]string, 0, len(last))
	for i, e := range list {
		name, value, _ := strings.Cut(e, "=")
		if last[name] == i && (name != "HOME" || value != "") {
			out = append(out, e)
		}
	}
	return out, nil
}

// refused capabilities: by tracing, a process could look into the shim's memory from within the container; an administrator
// may change mounts that containers have in common.
var refused = []struct {
	name string
	bit  int
}{{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE}, {"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_PERFMON", unix.CAP_PERFMON}}

func capabilities(out *shimapi.Process, c *specs.LinuxCapabilities) error {
	if c == nil {
		return unsupported("a process without a word about capabilities")
	}
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{
		{c.Bounding, &out.Bounding}, {c.Effective, &out.Effective}, {c.Permitted, &out.Permitted}, {c.Inheritable, &out.Inheritable},
		{c.Ambient, &out.Ambient},
	} {
		for _, name := range set.names {
			bit, ok := capabilityBits[name]
			if !ok {
				return unsupported("the capability %s", name)
			}
			*set.bits |= bit
		}
	}
	all := out.Bounding | out.Effective | out.Permitted | out.Inheritable | out.Ambient
	for _, c := range refused {
		if all&(1<<c.bit) != 0 {
			return unsupported("%s", c.name)
		}
	}
	return nil
}

var capabilityBits = func() map[string]uint64 {
	bits := map[string]uint64{}
	for _, c := range capability.ListKnown() {
		bits["CAP_"+strings.ToUpper(c.String())] = 1 << c
	}
	return bits
}()

var rlimitNames = []string{
	unix.RLIMIT_CPU: "RLIMIT_CPU", unix.RLIMIT_FSIZE: "RLIMIT_FSIZE", unix.RLIMIT_DATA: "RLIMIT_DATA", unix.RLIMIT_STACK: "RLIMIT_STACK",
	unix.RLIMIT_CORE: "RLIMIT_CORE", unix.RLIMIT_RSS: "RLIMIT_RSS", unix.RLIMIT_NPROC: "RLIMIT_NPROC", unix.RLIMIT_NOFILE: "RLIMIT_NOFILE",
	unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK", unix.RLIMIT_AS: "RLIMIT_AS", unix.RLIMIT_LOCKS: "RLIMIT_LOCKS",
	unix.RLIMIT_SIGPENDING: "RLIMIT_SIGPENDING", unix.RLIMIT_MSGQUEUE: "RLIMIT_MSGQUEUE", unix.RLIMIT_NICE: "RLIMIT_NICE",
	unix.RLIMIT_RTPRIO: "RLIMIT_RTPRIO", unix.RLIMIT_RTTIME: "RLIMIT_RTTIME",
}

func rlimits(out *shimapi.Process, limits []specs.POSIXRlimit) error {
	for _, r := range limits {
		i := slices.Index(rlimitNames, r.Type)
		if i < 0 {
			return unsupported("the limit %s", r.Type)
		}
		out.Rlimits = append(out.Rlimits, shimapi.Rlimit{Resource: i, Soft: r.Soft, Hard: r.Hard})
	}
	return nil
}
