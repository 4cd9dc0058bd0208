package seccompbpf

import (
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile. It depends on nothing but the profile and the
// machine's architecture, and may be loaded any number of times.
type Filter struct {
	// Program is an array of struct sock_filter, 8 bytes each, in the machine's
	// byte order: what sock_fprog.filter points to.
	Program []byte
	// Flags are SECCOMP_FILTER_FLAG_* for seccomp(2)'s SECCOMP_SET_MODE_FILTER.
	Flags uint
}

// Len returns the number of instructions, for sock_fprog.len.
func (f *Filter) Len() uint16 { return uint16(len(f.Program) / instructionSize) }

// Unsupported says that a profile has something that isn't compiled here. It
// may be valid: the OCI runtime has to decide that.
type Unsupported struct {
	// What isn't taken, with its place in the profile.
	What string
}

func (u *Unsupported) Error() string { return "seccomp profile not compiled: " + u.What }

// Compile compiles a profile for this machine. All its errors are *Unsupported.
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) {
	f, err := compile(profile, runtime.GOARCH)
	if err != nil {
		return nil, &Unsupported{What: err.Error()}
	}
	return f, nil
}

func compile(profile *specs.LinuxSeccomp, goarch string) (*Filter, error) {
	machine, ok := machines[goarch]
	if !ok {
		return nil, fmt.Errorf("no table of system calls for %s", goarch)
	}
	p, err := parse(profile)
	if err != nil {
		return nil, err
	}
	var arches []*arch
	for i, a := range machine {
		if i == 0 || slices.Contains(p.arches, a.name) {
			arches = append(arches, a)
		}
	}
	root, err := decide(p, arches)
	if err != nil {
		return nil, err
	}
	program := assemble(root)
	if n := len(program) / instructionSize; n > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("it takes %d instructions, the kernel allows %d", n, unix.BPF_MAXINSNS)
	}
	return &Filter{Program: program, Flags: p.flags}, nil
}

// decide builds the decision of a whole profile. The machine's own
// architecture comes first, since nearly all calls are of it.
func decide(p *profile, arches []*arch) (node, error) {
	calls := map[uint32]*search{}
	var order []uint32
	for _, a := range arches {
		t, err := newTable(p, a)
		if err != nil {
			return nil, err
		}
		s := calls[a.audit]
		if s == nil {
			s = &search{offset: offsetNumber, spans: all(math.MaxUint32, p.action)}
			calls[a.audit], order = s, append(order, a.audit)
		}
		// x32 shares amd64's audit number, and comes after it: paint over.
		t.paint(s, a, p, slices.Contains(arches, archX32))
	}
	root := node(badArch)
	for _, audit := range slices.Backward(order) {
		root = &test{offset: offsetArch, mask: math.MaxUint32, value: audit, yes: calls[audit], no: root}
	}
	return root, nil
}

// badArch is libseccomp's choice for calls of architectures that aren't in a
// filter; runc doesn't change it.
const badArch verdict = verdict(unix.SECCOMP_RET_KILL_THREAD)

// paint lays the decisions of one architecture over the numbers that are its.
func (t *table) paint(s *search, a *arch, p *profile, withX32 bool) {
	for _, number := range slices.Sorted(maps.Keys(t.rules)) {
		s.spans.paint(uint64(number), uint64(number), t.rules[number].node(a.wide, p.action))
	}
	nosys := verdict(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	for _, r := range a.numbers {
		// Numbers past the last one are unknown to the profile's author. Where the
		// profile names no call beyond number 0, runc can't tell and adds nothing.
		from := max(r.first, uint64(t.last)+1)
		if t.last != 0 && !p.permissive && from <= r.last {
			s.spans.paint(from, r.last, nosys)
		}
	}
	if a != archAMD64 || withX32 {
		return
	}
	// Without x32 its calls are those of a foreign architecture. The last of
	// all numbers is what a tracer sets to skip a call.
	for _, r := range archX32.numbers {
		s.spans.paint(r.first, min(r.last, math.MaxUint32-1), badArch)
	}
	if t.last == 0 || p.permissive {
		s.spans.paint(1<<31, 1<<31+x32Bit-1, badArch)
	}
}
