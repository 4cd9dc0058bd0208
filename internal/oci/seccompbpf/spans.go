package seccompbpf

import (
	"math"
	"slices"
	"sort"
)

// node is a point in the decision on a call: a verdict, or what to look at
// next. Nodes are shared where several ways lead to the same one.
type node interface{ decision() }

// verdict is what a filter returns: SECCOMP_RET_*, with its data.
type verdict uint32

// search finds the 32-bit word at offset of struct seccomp_data among spans.
type search struct {
	offset uint32
	spans  spans
}

// test compares the bits of mask of the word at offset.
type test struct {
	offset, mask, value uint32
	yes, no             node
}

func (verdict) decision() {}
func (*search) decision() {}
func (*test) decision()   {}

// Offsets in struct seccomp_data. Both machines are little-endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

func offsetLow(arg uint) uint32  { return offsetArgs + 8*uint32(arg) }
func offsetHigh(arg uint) uint32 { return offsetLow(arg) + 4 }

// spans divide the values up to largest into intervals.
type spans struct {
	largest uint64
	list    []span
}

// span begins at first, which is 0 for the first in a list, and ends where the
// next one begins.
type span struct {
	first uint64
	to    node
}

// all values up to largest lead to the same node.
func all(largest uint64, to node) spans {
	return spans{largest: largest, list: []span{{to: to}}}
}

// paint leads the values from first to last, both of them in it, elsewhere.
// Neighbours that lead to the same node become one. Painting in ascending order
// is cheapest.
func (s *spans) paint(first, last uint64, to node) {
	begin := sort.Search(len(s.list), func(i int) bool { return s.list[i].first >= first })
	end := sort.Search(len(s.list), func(i int) bool { return s.list[i].first > last })
	after := s.list[end-1].to // where last led, and what comes behind it
	paint := make([]span, 0, 2)
	if begin == 0 || s.list[begin-1].to != to {
		paint = append(paint, span{first, to})
	}
	switch {
	case last == s.largest:
	case end == len(s.list) || s.list[end].first != last+1:
		if after != to {
			paint = append(paint, span{last + 1, after})
		}
	case s.list[end].to == to:
		end++
	}
	s.list = slices.Replace(s.list, begin, end, paint...)
}

// halves turns spans of 64-bit values into spans of their upper halves, which
// lead, where that doesn't decide, to a search for the lower half at offset.
func (s *spans) halves(offset uint32) spans {
	out := all(math.MaxUint32, s.list[0].to)
	var inner *search
	var innerHigh uint64
	for i, sp := range s.list[1:] {
		high, low := sp.first>>32, sp.first&math.MaxUint32
		if low == 0 {
			out.paint(high, math.MaxUint32, sp.to)
			continue
		}
		if inner == nil || innerHigh != high {
			before := s.list[i].to
			inner, innerHigh = &search{offset: offset, spans: all(math.MaxUint32, before)}, high
			out.paint(high, high, inner)
		}
		inner.spans.list = append(inner.spans.list, span{low, sp.to})
		if high != math.MaxUint32 {
			out.paint(high+1, math.MaxUint32, sp.to)
		}
	}
	return out
}
