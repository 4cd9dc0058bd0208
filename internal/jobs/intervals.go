package jobs

import (
	"iter"
	"slices"
	"strconv"
	"strings"
)

// interval is a run of numbers, both ends included.
type interval struct{ First, Last int32 }

// intervals is a set of numbers that aren't negative, as disjoint runs in ascending order with a gap between any two: what a Job's status writes as
// "0-3,5". A set is never changed once it is made.
type intervals []interval

// parseIntervals reads what String writes, leaving out what isn't below the limit. What can't be read is left out as well: the API server lets no
// such thing in.
func parseIntervals(s string, limit int32) intervals {
	var set intervals
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRun := strings.Cut(part, "-")
		if !isRun {
			last = first
		}
		from, err := strconv.ParseInt(first, 10, 32)
		if err != nil || from < 0 {
			continue
		}
		to, err := strconv.ParseInt(last, 10, 32)
		if err != nil || to < from || from >= int64(limit) {
			continue
		}
		set = set.append(interval{int32(from), min(int32(to), limit-1)})
	}
	return set
}

// append adds a run that begins no earlier than the last one. It changes the receiver, so that only a set in the making may use it.
func (s intervals) append(run interval) intervals {
	if n := len(s); n > 0 && run.First <= s[n-1].Last+1 {
		s[n-1].Last = max(s[n-1].Last, run.Last)
		return s
	}
	return append(s, run)
}

// union returns all numbers that are in either set.
func (s intervals) union(t intervals) intervals {
	if len(t) == 0 {
		return s
	}
	if len(s) == 0 {
		return t
	}
	merged := make(intervals, 0, len(s)+len(t))
	for len(s) > 0 || len(t) > 0 {
		if len(t) == 0 || len(s) > 0 && s[0].First <= t[0].First {
			merged, s = merged.append(s[0]), s[1:]
		} else {
			merged, t = merged.append(t[0]), t[1:]
		}
	}
	return merged
}

// with returns the set with more numbers, in any order.
func (s intervals) with(more []int32) intervals {
	if len(more) == 0 {
		return s
	}
	var add intervals
	for _, n := range slices.Sorted(slices.Values(more)) {
		add = add.append(interval{n, n})
	}
	return s.union(add)
}

func (s intervals) has(n int32) bool {
	_, found := slices.BinarySearchFunc(s, n, func(run interval, n int32) int {
		switch {
		case run.Last < n:
			return -1
		case run.First > n:
			return 1
		default:
			return 0
		}
	})
	return found
}

// total is how many numbers are in the set.
func (s intervals) total() int32 {
	var n int32
	for _, run := range s {
		n += run.Last - run.First + 1
	}
	return n
}

// common is how many numbers are in both sets.
func (s intervals) common(t intervals) int32 {
	var n int32
	for len(s) > 0 && len(t) > 0 {
		n += max(min(s[0].Last, t[0].Last)-max(s[0].First, t[0].First)+1, 0)
		if s[0].Last < t[0].Last {
			s = s[1:]
		} else {
			t = t[1:]
		}
	}
	return n
}

// missing returns the numbers below the limit that aren't in the set, lowest first.
func (s intervals) missing(limit int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		var next int32
		for _, run := range s {
			for ; next < min(run.First, limit); next++ {
				if !yield(next) {
					return
				}
			}
			next = run.Last + 1
		}
		for ; next < limit; next++ {
			if !yield(next) {
				return
			}
		}
	}
}

// String writes the set as a Job's status has it: runs of three and more with a hyphen.
func (s intervals) String() string {
	var b strings.Builder
	for i, run := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(run.First)))
		switch run.Last - run.First {
		case 0:
			continue
		case 1:
			b.WriteByte(',')
		default:
			b.WriteByte('-')
		}
		b.WriteString(strconv.Itoa(int(run.Last)))
	}
	return b.String()
}
