package seccompbpf

import (
	_ "embed"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// x32Bit is set in the numbers of x32's calls (__X32_SYSCALL_BIT).
const x32Bit = 1 << 30

// interval is of numbers that an architecture's calls can have, both ends in it.
type interval struct{ first, last uint64 }

// arch is a way to make system calls that machines of one kind have.
type arch struct {
	name   specs.Arch
	column int    // in syscalls.csv
	audit  uint32 // seccomp_data.arch
	wide   bool   // arguments have 64 bits
	bits   uint32 // set in every number
	// multiplexed are the calls that socketcall(2) or ipc(2) make, too.
	multiplexed map[string]multiplexed
	numbers     []interval
}

// allNumbers is where each number is of the same architecture.
var allNumbers = []interval{{0, math.MaxUint32}}

var (
	archAMD64 = &arch{
		name: specs.ArchX86_64, column: 1, audit: unix.AUDIT_ARCH_X86_64, wide: true,
		numbers: []interval{{0, x32Bit - 1}, {1 << 31, 1<<31 + x32Bit - 1}},
	}
	archX86 = &arch{name: specs.ArchX86, column: 2, audit: unix.AUDIT_ARCH_I386, multiplexed: multiplexedX86, numbers: allNumbers}
	archX32 = &arch{
		name: specs.ArchX32, column: 3, audit: unix.AUDIT_ARCH_X86_64, bits: x32Bit,
		numbers: []interval{{x32Bit, 2*x32Bit - 1}, {3 * x32Bit, math.MaxUint32}},
	}
	archARM   = &arch{name: specs.ArchARM, column: 4, audit: unix.AUDIT_ARCH_ARM, numbers: allNumbers}
	archARM64 = &arch{name: specs.ArchAARCH64, column: 5, audit: unix.AUDIT_ARCH_AARCH64, wide: true, numbers: allNumbers}
)

// machines have, by GOARCH, the architectures that calls can come from, the
// machine's own first.
var machines = map[string][]*arch{
	"amd64": {archAMD64, archX86, archX32},
	"arm64": {archARM64, archARM},
}

// known are those that a profile may name. One that isn't the machine's makes
// no calls.
var known = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64}

// multiplexed says which first argument of call means a call.
type multiplexed struct {
	call string
	id   uint64
}

// multiplexedX86 has the numbers of linux/net.h and linux/ipc.h.
var multiplexedX86 = func() map[string]multiplexed {
	m := map[string]multiplexed{}
	for call, ids := range map[string]map[string]uint64{
		"socketcall": {
			"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6, "getpeername": 7, "socketpair": 8,
			"send": 9, "recv": 10, "sendto": 11, "recvfrom": 12, "shutdown": 13, "setsockopt": 14, "getsockopt": 15,
			"sendmsg": 16, "recvmsg": 17, "accept4": 18, "recvmmsg": 19, "sendmmsg": 20,
		},
		"ipc": {
			"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
			"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
		},
	} {
		for name, id := range ids {
			m[name] = multiplexed{call, id}
		}
	}
	return m
}()

//go:embed syscalls.csv
var syscallsCSV string

// numbersByColumn are the calls' numbers by the column of syscalls.csv. The
// file is this package's own, so what is wrong with it is a bug.
var numbersByColumn = sync.OnceValue(func() []map[string]uint32 {
	var columns []map[string]uint32
	for line := range strings.Lines(syscallsCSV) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ",")
		if columns == nil {
			for range fields {
				columns = append(columns, make(map[string]uint32, 512))
			}
			continue
		}
		for i, field := range fields[1:] {
			if field == "" {
				continue
			}
			n, err := strconv.ParseUint(field, 10, 32)
			if err != nil {
				panic("seccompbpf: syscalls.csv: " + err.Error())
			}
			columns[i+1][fields[0]] = uint32(n)
		}
	}
	return columns
})

// number returns the number by which the kernel sees a call.
func (a *arch) number(name string) (uint32, bool) {
	n, ok := numbersByColumn()[a.column][name]
	return n | a.bits, ok
}
