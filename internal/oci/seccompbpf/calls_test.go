package seccompbpf

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var auditArches = []uint32{
	unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390X, 0, math.MaxUint32,
}

// numbers are all that architectures have calls at, and the ends of all ranges.
var numbers = func() []uint32 {
	var out []uint32
	for _, base := range []uint32{0, x32Bit} {
		for n := range uint32(1024) {
			out = append(out, base+n)
		}
	}
	for n := uint32(0xf0000); n < 0xf0010; n++ {
		out = append(out, n)
	}
	for _, end := range []uint32{x32Bit, 2 * x32Bit, 3 * x32Bit, 0} {
		out = append(out, end-2, end-1, end+x32Bit/2)
	}
	slices.Sort(out)
	return slices.Compact(out)
}()

// calls yields, of every architecture and number, calls whose arguments are at
// and beside the values that the profile's rules compare them to.
func calls(p *specs.LinuxSeccomp, yield func(call) bool) {
	rng := rand.New(rand.NewPCG(1, 2))
	interesting := argumentsByName(p)
	for _, audit := range auditArches {
		byNumber := map[uint32][maxArgs][]uint64{}
		for _, a := range []*arch{archAMD64, archX86, archX32, archARM64, archARM} {
			if a.audit != audit {
				continue
			}
			for name, args := range interesting {
				if n, ok := a.number(name); ok {
					byNumber[n] = args
				}
			}
		}
		for _, number := range numbers {
			for _, args := range combine(rng, byNumber[number]) {
				if !yield(call{number, audit, args}) {
					return
				}
			}
		}
	}
}

// combine returns each value of each argument, with others at random.
func combine(rng *rand.Rand, values [maxArgs][]uint64) [][maxArgs]uint64 {
	out := [][maxArgs]uint64{{}}
	for index := range values {
		for _, v := range values[index] {
			for range 6 {
				var args [maxArgs]uint64
				for i, other := range values {
					if len(other) > 0 {
						args[i] = other[rng.IntN(len(other))]
					}
				}
				args[index] = v
				out = append(out, args)
			}
		}
	}
	return out
}

func argumentsByName(p *specs.LinuxSeccomp) map[string][maxArgs][]uint64 {
	out := map[string][maxArgs][]uint64{}
	add := func(name string, arg specs.LinuxSeccompArg) {
		values := out[name]
		for _, v := range []uint64{arg.Value, arg.ValueTwo, arg.Value & arg.ValueTwo, ^arg.Value | arg.ValueTwo} {
			values[arg.Index] = append(values[arg.Index], v, v-1, v+1, v^1<<32, v+1<<32, v|math.MaxUint32<<32, v&math.MaxUint32)
		}
		slices.SortFunc(values[arg.Index], cmp.Compare)
		values[arg.Index] = slices.Compact(values[arg.Index])
		out[name] = values
	}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			for _, arg := range s.Args {
				add(name, arg)
				if m := multiplexedX86[name]; m.call != "" {
					add(m.call, arg)
				}
			}
			if m := multiplexedX86[name]; m.call != "" {
				add(m.call, specs.LinuxSeccompArg{Value: m.id})
			}
		}
	}
	return out
}
