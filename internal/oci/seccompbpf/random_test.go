package seccompbpf

import (
	"errors"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"
)

// randomProfiles have rules for few calls, so that they meet.
func randomProfiles(names ...string) *rapid.Generator[*specs.LinuxSeccomp] {
	return rapid.Custom(func(t *rapid.T) *specs.LinuxSeccomp { return randomProfile(t, rapid.SampledFrom(names)) })
}

func randomProfile(t *rapid.T, names *rapid.Generator[string]) *specs.LinuxSeccomp {
	actions := rapid.SampledFrom([]specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog,
	})
	codes := rapid.SampledFrom([]*uint{nil, new(uint(0)), new(uint(1)), new(uint(38))})
	p := &specs.LinuxSeccomp{
		DefaultAction: actions.Draw(t, "default"), DefaultErrnoRet: codes.Draw(t, "defaultErrno"), Flags: []specs.LinuxSeccompFlag{},
		Architectures: rapid.SliceOfNDistinct(rapid.SampledFrom(known), 0, 5, rapid.ID).Draw(t, "architectures"),
	}
	// With one action only, nothing that overlaps is unsupported.
	action, errno := actions, codes
	if rapid.Bool().Draw(t, "oneAction") {
		action, errno = rapid.Just(actions.Draw(t, "action")), rapid.Just(codes.Draw(t, "errno"))
	}
	for range rapid.IntRange(0, 8).Draw(t, "rules") {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: rapid.SliceOfN(names, 1, 3).Draw(t, "names"), Action: action.Draw(t, "action"), ErrnoRet: errno.Draw(t, "errno"),
			Args: rapid.SliceOfN(arguments, 0, 3).Draw(t, "args"),
		})
	}
	return p
}

var arguments = rapid.Custom(func(t *rapid.T) specs.LinuxSeccompArg {
	values := rapid.SampledFrom([]uint64{0, 1, 2, 7, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 3<<32 | 7, 1<<63 - 1, 1 << 63, 1<<64 - 1})
	return specs.LinuxSeccompArg{
		Index: rapid.UintRange(0, 2).Draw(t, "index"), Value: values.Draw(t, "value"), ValueTwo: values.Draw(t, "valueTwo"),
		Op: rapid.SampledFrom([]specs.LinuxSeccompOperator{
			specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
		}).Draw(t, "op"),
	}
})

func TestRandomProfiles(t *testing.T) {
	compiled := 0
	profiles := randomProfiles(
		"read", "write", "socket", "accept4", "semop", "semctl", "socketcall", "ipc", "ioctl", "rt_sigaction", "openat2", "set_tls", "no_such_call",
	)
	rapid.Check(t, func(t *rapid.T) {
		p := profiles.Draw(t, "profile")
		for goarch := range machines {
			f, err := compile(p, goarch)
			if errors.Is(err, errOverlap) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			compiled++
			compare(t, p, goarch, f.Program)
		}
	})
	if compiled < 50 {
		t.Errorf("only %d profiles were compiled", compiled)
	}
}
