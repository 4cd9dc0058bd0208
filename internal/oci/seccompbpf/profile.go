package seccompbpf

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// profile is specs.LinuxSeccomp in the kernel's terms.
type profile struct {
	action verdict // of calls that no rule decides
	// permissive is set where the default action runs calls, or has a tracer
	// that does.
	permissive bool
	arches     []specs.Arch
	flags      uint
	rules      []rule
}

// rule is one of the profile's, for each of its names: action is taken where
// any of the alternatives matches.
type rule struct {
	names        []string
	action       verdict
	alternatives [][]condition
}

// condition is on the argument index, from 0.
type condition struct {
	index    uint
	op       specs.LinuxSeccompOperator
	value    uint64
	valueTwo uint64
}

func parse(in *specs.LinuxSeccomp) (*profile, error) {
	if in == nil {
		return nil, errors.New("there is none")
	}
	p := &profile{arches: in.Architectures}
	var err error
	if p.action, err = action(in.DefaultAction, in.DefaultErrnoRet); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	p.permissive = slices.Contains([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace}, in.DefaultAction)
	if p.flags, err = flags(in.Flags); err != nil {
		return nil, err
	}
	if in.ListenerPath != "" || in.ListenerMetadata != "" {
		return nil, errors.New("a listener for notifications")
	}
	for _, a := range p.arches {
		if !slices.Contains(known, a) {
			return nil, fmt.Errorf("architecture %q", a)
		}
	}
	for i, s := range in.Syscalls {
		r, err := parseRule(s)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

func action(a specs.LinuxSeccompAction, errno *uint) (verdict, error) {
	// As runc has it, also for tracing: a code is 16 bits wide, EPERM if not given.
	code := uint32(unix.EPERM)
	if errno != nil {
		code = uint32(*errno & unix.SECCOMP_RET_DATA)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return verdict(unix.SECCOMP_RET_ERRNO | code), nil
	case specs.ActTrace:
		return verdict(unix.SECCOMP_RET_TRACE | code), nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	}
	return 0, fmt.Errorf("action %q", a)
}

// flags has runc's default for a profile that says nothing of flags.
func flags(in []specs.LinuxSeccompFlag) (uint, error) {
	if in == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var out uint
	for _, f := range in {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// Of no use before an exec, which ends all other threads: runc ignores it.
		default:
			return 0, fmt.Errorf("flag %q", f)
		}
	}
	return out, nil
}

const maxArgs = 6

func parseRule(s specs.LinuxSyscall) (rule, error) {
	r := rule{names: s.Names}
	if slices.Contains(s.Names, "") {
		return rule{}, errors.New("a name that is empty")
	}
	var err error
	if r.action, err = action(s.Action, s.ErrnoRet); err != nil {
		return rule{}, err
	}
	var conditions []condition
	var seen [maxArgs]bool
	repeated := false
	for i, arg := range s.Args {
		if arg.Index >= maxArgs {
			return rule{}, fmt.Errorf("args[%d]: index %d, the last is %d", i, arg.Index, maxArgs-1)
		}
		c := condition{index: arg.Index, op: arg.Op, value: arg.Value, valueTwo: arg.ValueTwo}
		if !c.valid() {
			return rule{}, fmt.Errorf("args[%d]: operator %q", i, arg.Op)
		}
		repeated = repeated || seen[arg.Index]
		seen[arg.Index] = true
		conditions = append(conditions, c)
	}
	if !repeated {
		r.alternatives = [][]condition{conditions}
		return r, nil
	}
	for i := range conditions {
		r.alternatives = append(r.alternatives, conditions[i:i+1])
	}
	return r, nil
}

func (c condition) valid() bool {
	return slices.Contains([]specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}, c.op)
}

// narrow is the condition that a 32-bit architecture looks at.
func (c condition) narrow() condition {
	c.value, c.valueTwo = c.value&math.MaxUint32, c.valueTwo&math.MaxUint32
	return c
}

// bits returns the condition as (argument & mask) == value; ok is false for
// one that isn't of this kind. Bits of value outside of mask mean nothing.
func (c condition) bits() (mask, value uint64, ok bool) {
	switch c.op {
	case specs.OpEqualTo:
		return math.MaxUint64, c.value, true
	case specs.OpMaskedEqual:
		return c.value, c.value & c.valueTwo, true
	}
	return 0, 0, false
}

// ranges returns the arguments that match, up to last, which is the largest
// there is; ok is false for a condition on single bits.
func (c condition) ranges(last uint64) (in []interval, ok bool) {
	v := c.value
	below := func(n uint64) []interval {
		if n == 0 {
			return nil
		}
		return []interval{{0, n - 1}}
	}
	above := func(n uint64) []interval {
		if n >= last {
			return nil
		}
		return []interval{{n + 1, last}}
	}
	switch c.op {
	case specs.OpEqualTo:
		return []interval{{v, v}}, true
	case specs.OpNotEqual:
		return append(below(v), above(v)...), true
	case specs.OpLessThan:
		return below(v), true
	case specs.OpLessEqual:
		return []interval{{0, v}}, true
	case specs.OpGreaterThan:
		return above(v), true
	case specs.OpGreaterEqual:
		return []interval{{v, last}}, true
	case specs.OpMaskedEqual:
		if c.value == last {
			return []interval{{c.valueTwo, c.valueTwo}}, true
		}
	}
	return nil, false
}
