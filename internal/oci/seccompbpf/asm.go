package seccompbpf

import (
	"encoding/binary"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// instruction is a struct sock_filter.
type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

const instructionSize = 8

// assembler writes a program from its end, so that every jump, which BPF has
// forwards only, knows how far its aim is.
type assembler struct {
	reversed []instruction
	// placed says where the nearest way to a node is: its first instruction, or
	// a jump there.
	placed map[node]*label
}

// label is a place in a program, by its distance from the end.
type label struct{ at int }

// assemble returns the program that decides as root does, in the machine's
// byte order.
func assemble(root node) []byte {
	a := &assembler{placed: map[node]*label{}}
	if v, ok := root.(verdict); ok {
		a.label(v)
	} else {
		a.place(root)
	}
	out := make([]byte, 0, instructionSize*len(a.reversed))
	for _, in := range slices.Backward(a.reversed) {
		out = binary.NativeEndian.AppendUint16(out, in.code)
		out = append(out, in.jt, in.jf)
		out = binary.NativeEndian.AppendUint32(out, in.k)
	}
	return out
}

// place writes a node, after (that is, before) all that it leads to.
func (a *assembler) place(n node) {
	if a.placed[n] != nil {
		return
	}
	var entry *label
	switch n := n.(type) {
	case *search:
		for _, s := range n.spans.list {
			a.place(s.to)
		}
		if entry = a.tree(n.spans.list); a.distance(entry) == 0 {
			entry = a.load(n.offset)
		}
	case *test:
		a.place(n.no)
		a.place(n.yes)
		if entry = a.jump(unix.BPF_JEQ, n.value&n.mask, a.label(n.yes), a.label(n.no)); a.distance(entry) == 0 {
			if n.mask != math.MaxUint32 {
				a.emit(instruction{code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, k: n.mask})
			}
			entry = a.load(n.offset)
		}
	case verdict:
		return // label writes it where it is in need
	}
	a.placed[n] = entry
}

// tree writes a binary search for the accumulator among s and returns where it
// begins.
func (a *assembler) tree(s []span) *label {
	if len(s) == 1 {
		return a.label(s[0].to)
	}
	if points(s) {
		next := a.label(s[0].to)
		for i := len(s) - 2; i > 0; i -= 2 {
			next = a.jump(unix.BPF_JEQ, uint32(s[i].first), a.label(s[i].to), next)
		}
		return next
	}
	half := len(s) / 2
	upper := a.tree(s[half:])
	lower := a.tree(s[:half])
	return a.jump(unix.BPF_JGE, uint32(s[half].first), upper, lower)
}

// points reports whether s are a few single values among others that all lead
// to the same node: then asking for each is shorter than a search.
func points(s []span) bool {
	if len(s)%2 == 0 || len(s) > 7 {
		return false
	}
	for i := 1; i < len(s); i += 2 {
		if s[i+1].first != s[i].first+1 || s[i+1].to != s[0].to {
			return false
		}
	}
	return true
}

func (a *assembler) load(offset uint32) *label {
	return a.emit(instruction{code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, k: offset})
}

// jump writes a conditional jump.
func (a *assembler) jump(op uint16, k uint32, yes, no *label) *label {
	if yes == no { // nothing to decide, and nothing is written
		return yes
	}
	for a.distance(yes) > math.MaxUint8 || a.distance(no) > math.MaxUint8 {
		for _, l := range []*label{yes, no} {
			if a.distance(l) > math.MaxUint8 {
				a.nearer(l)
			}
		}
	}
	return a.emit(instruction{code: unix.BPF_JMP | op | unix.BPF_K, k: k, jt: uint8(a.distance(yes)), jf: uint8(a.distance(no))})
}

// nearer writes another way to l: the verdict again, or an unconditional jump,
// whose distance has 32 bits. Jumps that were written already don't change.
func (a *assembler) nearer(l *label) {
	in := a.reversed[l.at]
	if in.code != unix.BPF_RET|unix.BPF_K {
		in = instruction{code: unix.BPF_JMP | unix.BPF_JA, k: uint32(a.distance(l))}
	}
	l.at = a.emit(in).at
}

// label returns the nearest way to a node, which is placed or a verdict.
func (a *assembler) label(n node) *label {
	v, ok := n.(verdict)
	if ok && a.placed[n] == nil {
		a.placed[n] = a.emit(instruction{code: unix.BPF_RET | unix.BPF_K, k: uint32(v)})
	}
	return a.placed[n]
}

// distance is how many instructions stand between the next that is written and l.
func (a *assembler) distance(l *label) int { return len(a.reversed) - l.at - 1 }

// here is the instruction that was written last.
func (a *assembler) here() *label { return &label{at: len(a.reversed) - 1} }

func (a *assembler) emit(in instruction) *label {
	a.reversed = append(a.reversed, in)
	return a.here()
}
