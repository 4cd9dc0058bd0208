package seccompbpf

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultProfile is the one that containers without a profile of their own
// have, for all the architectures of a machine.
func defaultProfile(goarch string, capabilities ...string) *specs.LinuxSeccomp {
	p := seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}})
	p.Architectures = nil
	for _, a := range machines[goarch] {
		p.Architectures = append(p.Architectures, a.name)
	}
	return p
}

// compare compares a program with the reference for every call there may be.
func compare(t interface{ Fatalf(string, ...any) }, p *specs.LinuxSeccomp, goarch string, program []byte) (compared int) {
	for c := range func(yield func(call) bool) { calls(p, yield) } {
		compared++
		if have, want := run(program, c), reference(p, goarch, c); have != want {
			text, _ := json.Marshal(p)
			t.Fatalf("%s: call %d (%#x) of %#x with %#x: %#x, want %#x; profile %s", goarch, c.number, c.number, c.arch, c.args, have, want, text)
		}
	}
	return compared
}

func TestDefaultProfile(t *testing.T) {
	for goarch, machine := range machines {
		for n := range len(machine) + 1 {
			p := defaultProfile(goarch)
			if n == len(machine) {
				p = defaultProfile(goarch, "CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE")
			} else {
				p.Architectures = p.Architectures[:n]
			}
			f, err := compile(p, goarch)
			if err != nil {
				t.Fatal(err)
			}
			compared := compare(t, p, goarch, f.Program)
			t.Logf("%s, %v: %d instructions, %d calls compared", goarch, p.Architectures, f.Len(), compared)
		}
	}
}

// Each name that the default profile has must have a number somewhere, or the
// table has fallen behind.
func TestDefaultProfileNamesAreKnown(t *testing.T) {
	// Those of architectures that errand doesn't run on.
	others := map[string]bool{
		"riscv_flush_icache": true, "riscv_hwprobe": true, "s390_pci_mmio_read": true, "s390_pci_mmio_write": true, "s390_runtime_instr": true,
		"swapcontext": true, "sync_file_range2": true, "switch_endian": true, "spu_create": true, "spu_run": true,
	}
	p := defaultProfile("amd64", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_TIME")
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			known := others[name]
			for column := 1; column <= 5; column++ {
				_, ok := numbersByColumn()[column][name]
				known = known || ok
			}
			if !known {
				t.Errorf("%s has no number", name)
			}
		}
	}
}

func on(action specs.LinuxSeccompAction, name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: action, Args: args}
}

func arg(index uint, op specs.LinuxSeccompOperator, values ...uint64) specs.LinuxSeccompArg {
	a := specs.LinuxSeccompArg{Index: index, Op: op, Value: values[0]}
	if len(values) > 1 {
		a.ValueTwo = values[1]
	}
	return a
}

const (
	allow = uint32(unix.SECCOMP_RET_ALLOW)
	kill  = uint32(unix.SECCOMP_RET_KILL_THREAD)
)

func errno(n unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(n) }

func TestVerdicts(t *testing.T) {
	amd64 := func(n uint32, args ...uint64) call {
		c := call{number: n, arch: unix.AUDIT_ARCH_X86_64}
		copy(c.args[:], args)
		return c
	}
	i386 := func(n uint32, args ...uint64) call {
		c := amd64(n, args...)
		c.arch = unix.AUDIT_ARCH_I386
		return c
	}
	code := func(n uint) *uint { return &n }
	withX86 := []specs.Arch{specs.ArchX86_64, specs.ArchX86}
	for name, test := range map[string]struct {
		profile specs.LinuxSeccomp
		want    map[call]uint32
	}{
		"the default errno is EPERM": {
			specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "write"), on(specs.ActAllow, "close")}},
			map[call]uint32{amd64(0): errno(unix.EPERM), amd64(1): allow, amd64(2): errno(unix.EPERM), amd64(3): allow, amd64(4): errno(unix.ENOSYS)},
		},
		"errnos as given, of 16 bits": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, DefaultErrnoRet: code(uint(unix.EACCES)),
				Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActErrno, ErrnoRet: code(1<<16 + 7)}, on(specs.ActAllow, "mseal")},
			},
			map[call]uint32{amd64(0): errno(unix.EACCES), amd64(1): errno(7), amd64(462): allow, amd64(463): errno(unix.ENOSYS)},
		},
		"a default that lets calls through is for unknown ones, too": {
			specs.LinuxSeccomp{DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{on(specs.ActKillProcess, "write")}},
			map[call]uint32{amd64(0): unix.SECCOMP_RET_LOG, amd64(1): unix.SECCOMP_RET_KILL_PROCESS, amd64(900): unix.SECCOMP_RET_LOG, amd64(x32Bit): kill},
		},
		"calls of foreign architectures": {
			specs.LinuxSeccomp{DefaultAction: specs.ActAllow},
			map[call]uint32{amd64(0): allow, i386(0): kill, amd64(x32Bit): kill, amd64(1 << 31): kill, amd64(1<<32 - 1): allow},
		},
		"x32 where it is wanted": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX32, specs.ArchAARCH64},
				Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "ioctl"), on(specs.ActAllow, "dup3")},
			},
			map[call]uint32{
				amd64(16): allow, amd64(x32Bit + 16): errno(unix.EPERM), amd64(x32Bit + 514): allow, amd64(x32Bit + 292): allow,
				amd64(293): errno(unix.ENOSYS), amd64(x32Bit + 515): errno(unix.ENOSYS), i386(54): kill,
			},
		},
		"arguments all match, in all their bits": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, Architectures: withX86,
				Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "ioctl", arg(0, specs.OpEqualTo, 1<<40+5), arg(1, specs.OpGreaterThan, 7))},
			},
			map[call]uint32{
				amd64(16, 1<<40+5, 8): allow, amd64(16, 1<<40+5, 1<<35): allow, amd64(16, 1<<40+5, 7): errno(unix.EPERM),
				amd64(16, 5, 8): errno(unix.EPERM), amd64(16, 1<<40+6, 8): errno(unix.EPERM),
				i386(54, 5, 8): allow, // 32-bit callers have no more than the lower half
			},
		},
		"two arguments of the same index are alternatives": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno,
				Syscalls: []specs.LinuxSyscall{
					on(specs.ActAllow, "ioctl", arg(0, specs.OpEqualTo, 1), arg(0, specs.OpEqualTo, 2), arg(1, specs.OpEqualTo, 3)),
				},
			},
			map[call]uint32{amd64(16, 1): allow, amd64(16, 2): allow, amd64(16, 9, 3): allow, amd64(16, 9, 9): errno(unix.EPERM)},
		},
		"masked, with bits outside of the mask": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno,
				Syscalls:      []specs.LinuxSyscall{on(specs.ActAllow, "ioctl", arg(0, specs.OpMaskedEqual, 0xf<<32|0xf, 0x51<<32|0x52))},
			},
			map[call]uint32{amd64(16, 1<<32|2): allow, amd64(16, 0xa1<<32|0xb2): allow, amd64(16, 2<<32|2): errno(unix.EPERM), amd64(16, 1<<32|1): errno(unix.EPERM)},
		},
		"the first rule without arguments decides": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno,
				Syscalls: []specs.LinuxSyscall{
					on(specs.ActAllow, "ioctl", arg(0, specs.OpEqualTo, 1)), on(specs.ActTrap, "ioctl"), on(specs.ActAllow, "ioctl"),
				},
			},
			map[call]uint32{amd64(16, 1): unix.SECCOMP_RET_TRAP, amd64(16, 2): unix.SECCOMP_RET_TRAP},
		},
		"rules of different actions that don't overlap": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, Architectures: withX86,
				Syscalls: []specs.LinuxSyscall{
					on(specs.ActAllow, "ioctl", arg(0, specs.OpLessThan, 5)), on(specs.ActTrap, "ioctl", arg(0, specs.OpEqualTo, 5)),
					on(specs.ActAllow, "bind"), on(specs.ActTrap, "connect"), on(specs.ActAllow, "openat2"),
				},
			},
			map[call]uint32{
				amd64(16, 4): allow, amd64(16, 5): unix.SECCOMP_RET_TRAP, amd64(16, 6): errno(unix.EPERM),
				i386(102, 2): allow, i386(102, 3): unix.SECCOMP_RET_TRAP, i386(102, 4): errno(unix.EPERM),
			},
		},
		"socketcall can't be asked for its call's arguments": {
			specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, Architectures: withX86,
				Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "socket", arg(0, specs.OpEqualTo, unix.AF_INET)), on(specs.ActAllow, "openat2")},
			},
			map[call]uint32{
				amd64(41, 2): allow, amd64(41, 3): errno(unix.EPERM), i386(359, 2): allow, i386(359, 3): errno(unix.EPERM),
				i386(102, 1): allow, i386(102, 2): errno(unix.EPERM),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := compile(&test.profile, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			for c, want := range test.want {
				if have := run(f.Program, c); have != want {
					t.Errorf("call %#x of %#x with %#x: %#x, want %#x", c.number, c.arch, c.args, have, want)
				}
			}
			compare(t, &test.profile, "amd64", f.Program)
		})
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		in   []specs.LinuxSeccompFlag
		want uint
	}{
		{nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"}, unix.SECCOMP_FILTER_FLAG_LOG},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: test.in})
		if err != nil {
			t.Fatal(err)
		}
		if f.Flags != test.want {
			t.Errorf("%q: %#x, want %#x", test.in, f.Flags, test.want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	with := func(s ...specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: s}
	}
	var many []specs.LinuxSyscall
	for i := range uint64(6000) {
		many = append(many, on(specs.ActAllow, "ioctl", arg(0, specs.OpEqualTo, 3*i), arg(1, specs.OpEqualTo, i)))
	}
	for _, test := range []struct {
		profile *specs.LinuxSeccomp
		what    string
	}{
		{nil, "there is none"},
		{&specs.LinuxSeccomp{}, `default: action ""`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, `default: action "SCMP_ACT_NOTIFY"`},
		{with(on(specs.ActAllow, "read"), on(specs.ActNotify, "read")), `syscalls[1]: action "SCMP_ACT_NOTIFY"`},
		{with(on("ALLOW", "read")), `syscalls[0]: action "ALLOW"`},
		{with(on(specs.ActAllow, "")), "syscalls[0]: a name that is empty"},
		{with(on(specs.ActAllow, "read", arg(6, specs.OpEqualTo, 1))), "syscalls[0]: args[0]: index 6, the last is 5"},
		{with(on(specs.ActAllow, "read", arg(0, "EQ", 1))), `syscalls[0]: args[0]: operator "EQ"`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390X}}, `architecture "SCMP_ARCH_S390X"`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}}, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/x"}, "a listener for notifications"},
		{
			with(on(specs.ActAllow, "ioctl", arg(0, specs.OpGreaterThan, 1)), on(specs.ActTrap, "ioctl", arg(0, specs.OpLessThan, 3))),
			"syscall ioctl: rules of different actions overlap",
		},
		{
			with(on(specs.ActAllow, "ioctl", arg(0, specs.OpEqualTo, 1)), on(specs.ActTrap, "ioctl", arg(1, specs.OpEqualTo, 2))),
			"syscall ioctl: rules of different actions overlap",
		},
		{with(many...), "the kernel allows 4096"},
	} {
		f, err := Compile(test.profile)
		var u *Unsupported
		if !errors.As(err, &u) || f != nil || !strings.Contains(u.What, test.what) {
			t.Errorf("%+.80v: %v, want %q", test.profile, err, test.what)
		}
	}
	if _, err := compile(with(), "s390x"); err == nil || !strings.Contains(err.Error(), "s390x") {
		t.Error(err)
	}
}

// Programs whose parts are further from one another than a conditional jump
// reaches.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	code := uint(2)
	for name := range numbersByColumn()[1] {
		for i := range uint64(2) {
			r := on(specs.ActErrno, name, arg(uint(i), specs.OpEqualTo, i+1<<33), arg(uint(i+2), specs.OpMaskedEqual, 6, 4*i))
			r.ErrnoRet = &code
			p.Syscalls = append(p.Syscalls, r)
		}
		if len(p.Syscalls) == 120 {
			break
		}
	}
	for goarch := range machines {
		f, err := compile(p, goarch)
		if err != nil {
			t.Fatal(err)
		}
		if f.Len() < 600 {
			t.Errorf("%d instructions have no long jumps", f.Len())
		}
		compare(t, p, goarch, f.Program)
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, arches := range [][]specs.Arch{nil, {specs.ArchX86}, {specs.ArchX86, specs.ArchX32}} {
		p := defaultProfile("amd64")
		p.Architectures = arches
		b.Run(fmt.Sprintf("arches=%d", len(arches)+1), func(b *testing.B) {
			b.ReportAllocs()
			var f *Filter
			for b.Loop() {
				var err error
				if f, err = compile(p, "amd64"); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(f.Len()), "instructions")
		})
	}
}
