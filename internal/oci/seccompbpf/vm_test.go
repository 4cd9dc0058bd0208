package seccompbpf

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// call is struct seccomp_data, but for the instruction pointer.
type call struct {
	number uint32
	arch   uint32
	args   [maxArgs]uint64
}

// word is the 32-bit word at an offset, as a little-endian machine has it.
func (c call) word(offset uint32) uint32 {
	switch {
	case offset == offsetNumber:
		return c.number
	case offset == offsetArch:
		return c.arch
	case offset < offsetArgs || offset%4 != 0:
		panic(fmt.Sprintf("load of offset %d", offset))
	}
	arg := c.args[(offset-offsetArgs)/8]
	if offset%8 != 0 {
		arg >>= 32
	}
	return uint32(arg)
}

// run does what the kernel does with a program that it has accepted. It panics
// for instructions that programs of this package don't have.
func run(program []byte, c call) uint32 {
	var acc uint32
	for pc := 0; ; pc++ {
		in := program[pc*instructionSize:]
		k := binary.NativeEndian.Uint32(in[4:])
		var taken bool
		switch code := binary.NativeEndian.Uint16(in); code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = c.word(k)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = acc == k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken = acc >= k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken = acc > k
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			taken = acc&k != 0
		default:
			panic(fmt.Sprintf("instruction %d: code %#x", pc, code))
		}
		if taken {
			pc += int(in[2])
		} else {
			pc += int(in[3])
		}
	}
}
