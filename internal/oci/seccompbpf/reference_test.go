package seccompbpf

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// reference says what becomes of a call, from the profile as it stands, rule by
// rule. Where rules of different actions match one call it is wrong.
func reference(p *specs.LinuxSeccomp, goarch string, c call) uint32 {
	a := caller(p, goarch, c)
	if a == nil {
		if goarch == "amd64" && c.arch == unix.AUDIT_ARCH_X86_64 && c.number == math.MaxUint32 {
			return verdictOf(p.DefaultAction, p.DefaultErrnoRet)
		}
		if goarch == "amd64" && c.arch == unix.AUDIT_ARCH_X86_64 && c.number&x32Bit == 0 && !lets(p.DefaultAction) && newest(p, archAMD64) != 0 {
			return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		}
		return unix.SECCOMP_RET_KILL_THREAD
	}
	if last := newest(p, a); last != 0 && c.number > last && !lets(p.DefaultAction) {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	def := verdictOf(p.DefaultAction, p.DefaultErrnoRet)
	found := def
	for _, s := range p.Syscalls {
		action := verdictOf(s.Action, s.ErrnoRet)
		if action == def {
			continue
		}
		switch matches, always := ruleMatches(s, a, c); {
		case always:
			return action
		case matches && found == def:
			found = action
		}
	}
	return found
}

// caller is the architecture in the profile that a call is of.
func caller(p *specs.LinuxSeccomp, goarch string, c call) *arch {
	candidates := map[string]map[uint32]*arch{
		"amd64": {unix.AUDIT_ARCH_X86_64: archAMD64, unix.AUDIT_ARCH_I386: archX86},
		"arm64": {unix.AUDIT_ARCH_AARCH64: archARM64, unix.AUDIT_ARCH_ARM: archARM},
	}
	a := candidates[goarch][c.arch]
	if a == archAMD64 {
		withX32 := slices.Contains(p.Architectures, specs.ArchX32)
		switch {
		case withX32 && c.number&x32Bit != 0:
			return archX32
		case !withX32 && c.number >= x32Bit:
			return nil
		}
		return a
	}
	if a == nil || a != archARM64 && !slices.Contains(p.Architectures, a.name) {
		return nil
	}
	return a
}

func lets(a specs.LinuxSeccompAction) bool {
	return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace
}

func newest(p *specs.LinuxSeccomp, a *arch) uint32 {
	var last uint32
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if n, ok := a.number(name); ok && (a != archX86 || multiplexedX86[name].call == "") {
				last = max(last, n)
			}
		}
	}
	return last
}

var verdicts = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x00030000,
	specs.ActErrno: 0x00050000, specs.ActTrace: 0x7ff00000, specs.ActLog: 0x7ffc0000, specs.ActAllow: 0x7fff0000,
}

func verdictOf(a specs.LinuxSeccompAction, errno *uint) uint32 {
	v := verdicts[a]
	switch {
	case a != specs.ActErrno && a != specs.ActTrace:
		return v
	case errno == nil:
		return v | uint32(unix.EPERM)
	}
	return v | uint32(uint16(*errno))
}

func ruleMatches(s specs.LinuxSyscall, a *arch, c call) (matches, always bool) {
	for _, name := range s.Names {
		if n, ok := a.number(name); ok && n == c.number {
			m, al := argsMatch(s.Args, a, c)
			matches, always = matches || m, always || al
		}
		mux, ok := a.multiplexed[name]
		if n, _ := a.number(mux.call); ok && n == c.number {
			var rest []specs.LinuxSeccompArg
			var seen [maxArgs]int
			for _, arg := range s.Args {
				seen[arg.Index]++
				if arg.Index != 0 {
					rest = append(rest, arg)
				}
			}
			m := true
			switch {
			case slices.Max(seen[:]) < 2:
				for _, arg := range rest {
					m = m && argMatches(arg, a, c)
				}
			case seen[0] == 0:
				m, _ = argsMatch(rest, a, c)
			}
			matches = matches || m && uint32(c.args[0]) == uint32(mux.id)
		}
	}
	return matches, always
}

// argsMatch is for all of a rule's arguments, or any where an index repeats.
func argsMatch(args []specs.LinuxSeccompArg, a *arch, c call) (matches, always bool) {
	var seen [maxArgs]int
	every, some, trivial := true, false, 0
	for _, arg := range args {
		seen[arg.Index]++
		m := argMatches(arg, a, c)
		every, some = every && m, some || m
		if mask := arg.Value; arg.Op == specs.OpMaskedEqual && (mask == 0 || !a.wide && uint32(mask) == 0) {
			trivial++
		}
	}
	if slices.Max(seen[:]) > 1 {
		return some, trivial > 0
	}
	return every, trivial == len(args)
}

func argMatches(arg specs.LinuxSeccompArg, a *arch, c call) bool {
	have, v, w := c.args[arg.Index], arg.Value, arg.ValueTwo
	if !a.wide {
		have, v, w = uint64(uint32(have)), uint64(uint32(v)), uint64(uint32(w))
	}
	switch arg.Op {
	case specs.OpNotEqual:
		return have != v
	case specs.OpLessThan:
		return have < v
	case specs.OpLessEqual:
		return have <= v
	case specs.OpEqualTo:
		return have == v
	case specs.OpGreaterEqual:
		return have >= v
	case specs.OpGreaterThan:
		return have > v
	}
	return have&v == w&v
}
