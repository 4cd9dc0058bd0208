package jobs

import (
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseIntervals(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int32
		want  intervals
		// out is what String makes of it.
		out string
	}{
		{"", 10, nil, ""},
		{"0", 10, intervals{{0, 0}}, "0"},
		{"0-3,5", 10, intervals{{0, 3}, {5, 5}}, "0-3,5"},
		{"1,2,4", 10, intervals{{1, 2}, {4, 4}}, "1,2,4"},
		{"1-2,4", 10, intervals{{1, 2}, {4, 4}}, "1,2,4"},
		{"0,1,2,3", 10, intervals{{0, 3}}, "0-3"},
		{"5,3", 10, intervals{{5, 5}}, "5"}, // not ascending: the API server lets no such thing in
		{"0-2,3-5", 10, intervals{{0, 5}}, "0-5"},
		{"7-7", 10, intervals{{7, 7}}, "7"},
		// The limit: a Job that was made smaller.
		{"0-3,5", 5, intervals{{0, 3}}, "0-3"},
		{"0-3,5", 6, intervals{{0, 3}, {5, 5}}, "0-3,5"},
		{"0-3,5", 2, intervals{{0, 1}}, "0,1"},
		{"0-3,5", 0, nil, ""},
		{"2147483646", math.MaxInt32, intervals{{math.MaxInt32 - 1, math.MaxInt32 - 1}}, "2147483646"},
		{"2147483647", math.MaxInt32, nil, ""},
		// What nobody can read is left out, and nothing else.
		{"x", 10, nil, ""},
		{"1,,3", 10, intervals{{1, 1}, {3, 3}}, "1,3"},
		{"1,x,3", 10, intervals{{1, 1}, {3, 3}}, "1,3"},
		{"-1,3", 10, intervals{{3, 3}}, "3"},
		{"3-1,5", 10, intervals{{5, 5}}, "5"},
		{"1-2-3,5", 10, intervals{{5, 5}}, "5"},
		{"1-,5", 10, intervals{{5, 5}}, "5"},
		{" 1,5", 10, intervals{{5, 5}}, "5"},
		{"1.5,5", 10, intervals{{5, 5}}, "5"},
		{"0-9999999999,5", 10, intervals{{5, 5}}, "5"},
		{"9999999999,5", 10, intervals{{5, 5}}, "5"},
	} {
		got := parseIntervals(tc.in, tc.limit)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%q below %d: %s", tc.in, tc.limit, diff)
		}
		if got.String() != tc.out {
			t.Errorf("%q below %d is written %q, want %q", tc.in, tc.limit, got, tc.out)
		}
	}
}

func TestUnion(t *testing.T) {
	for _, tc := range []struct{ a, b, want string }{
		{"", "", ""},
		{"1", "", "1"},
		{"0-3", "5-9", "0-3,5-9"},
		{"0-3", "4", "0-4"},
		{"0-3,6-9", "4,5", "0-9"},
		{"0-9", "2-4", "0-9"},
		{"0-4", "2-6", "0-6"},
		{"0,2,4", "1,3,5", "0-5"},
		{"5,6", "0,1,8", "0,1,5,6,8"},
	} {
		a, b := parseIntervals(tc.a, 100), parseIntervals(tc.b, 100)
		for _, got := range []intervals{a.union(b), b.union(a)} {
			if got.String() != tc.want {
				t.Errorf("%q and %q: %q, want %q", tc.a, tc.b, got, tc.want)
			}
		}
		if a.String() != tc.a || b.String() != tc.b {
			t.Errorf("union changed a set: %q, %q", a, b)
		}
	}
}

func TestWith(t *testing.T) {
	for _, tc := range []struct {
		set  string
		more []int32
		want string
	}{
		{"", nil, ""},
		{"1-3", nil, "1-3"},
		{"", []int32{4, 2, 3}, "2-4"},
		{"0-3,6", []int32{5, 4}, "0-6"},
		{"1-3", []int32{2, 2}, "1-3"},
		{"5", []int32{0, 9}, "0,5,9"},
	} {
		set := parseIntervals(tc.set, 100)
		if got := set.with(tc.more).String(); got != tc.want {
			t.Errorf("%q with %v: %q, want %q", tc.set, tc.more, got, tc.want)
		}
		if set.String() != tc.set {
			t.Errorf("%q became %q", tc.set, set)
		}
	}
}

func TestMissing(t *testing.T) {
	for _, tc := range []struct {
		set   string
		limit int32
		want  []int32
	}{
		{"", 3, []int32{0, 1, 2}},
		{"", 0, nil},
		{"0-2", 3, nil},
		{"1", 4, []int32{0, 2, 3}},
		{"0,2-3", 6, []int32{1, 4, 5}},
		{"2-8", 5, []int32{0, 1}}, // made smaller
		{"7", 3, []int32{0, 1, 2}},
	} {
		if got := slices.Collect(parseIntervals(tc.set, 100).missing(tc.limit)); !slices.Equal(got, tc.want) {
			t.Errorf("%q below %d: %v, want %v", tc.set, tc.limit, got, tc.want)
		}
	}
	for n := range parseIntervals("1", 100).missing(math.MaxInt32) { // takes no longer than what is asked for
		if n == 5 {
			break
		}
	}
}

// numbers is a set of numbers below the limit, and the same as the simplest thing that can hold one.
func numbers(t *rapid.T, limit int32, label string) (intervals, map[int32]bool) {
	list := rapid.SliceOf(rapid.Int32Range(0, limit-1)).Draw(t, label)
	set := map[int32]bool{}
	for _, n := range list {
		set[n] = true
	}
	return intervals(nil).with(list), set
}

func sorted(set map[int32]bool) []int32 { return slices.Sorted(maps.Keys(set)) }

// members lists what the intervals hold.
func members(s intervals) []int32 {
	var out []int32
	for _, run := range s {
		for n := run.First; n <= run.Last; n++ {
			out = append(out, n)
		}
	}
	return out
}

// Whatever is done with sets of numbers comes out as it does with maps.
func TestIntervalsAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int32Range(1, 60).Draw(t, "limit")
		a, inA := numbers(t, limit, "a")
		b, inB := numbers(t, limit, "b")
		union, both, missing := maps.Clone(inA), int32(0), []int32(nil)
		for n := range inB {
			union[n] = true
			if inA[n] {
				both++
			}
		}
		for n := range limit {
			if a.has(n) != inA[n] {
				t.Fatalf("%q has %d: %v", a, n, a.has(n))
			}
			if !inA[n] {
				missing = append(missing, n)
			}
		}
		if got := members(a); !slices.Equal(got, sorted(inA)) || int(a.total()) != len(inA) {
			t.Fatalf("%q of %d: %v, want %v", a, a.total(), got, sorted(inA))
		}
		if got := members(a.union(b)); !slices.Equal(got, sorted(union)) {
			t.Fatalf("%q and %q: %v, want %v", a, b, got, sorted(union))
		}
		if got := a.common(b); got != both {
			t.Fatalf("%q and %q have %d in common, want %d", a, b, got, both)
		}
		if got := slices.Collect(a.missing(limit)); !slices.Equal(got, missing) {
			t.Fatalf("%q lacks %v, want %v", a, got, missing)
		}
		checkRuns(t, a.union(b))
	})
}

// checkRuns: runs ascend, with a gap between any two.
func checkRuns(t *rapid.T, s intervals) {
	for i, run := range s {
		if run.First > run.Last || i > 0 && run.First <= s[i-1].Last+1 {
			t.Fatalf("runs %v", []interval(s))
		}
	}
}

// What is written can be read again, below any limit, and upstream's validation of a Job's status accepts it.
func TestIntervalsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int32Range(1, 60).Draw(t, "limit")
		set, in := numbers(t, limit, "set")
		if diff := cmp.Diff(set, parseIntervals(set.String(), limit)); diff != "" {
			t.Fatal(diff)
		}
		less := rapid.Int32Range(0, limit).Draw(t, "less")
		maps.DeleteFunc(in, func(n int32, _ bool) bool { return n >= less })
		if got := members(parseIntervals(set.String(), less)); !slices.Equal(got, sorted(in)) {
			t.Fatalf("%q below %d: %v", set, less, got)
		}
		old := makeJob("job").indexed(limit).stored().started(epoch).obj()
		job := old.DeepCopy()
		job.Status.CompletedIndexes, job.Status.Succeeded = set.String(), set.total()
		if err := validateStatus(job, old); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever a user's successPolicy or a broken status holds, reading it fails no promise of the set.
func TestParseIntervalsOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9,x-]{0,30}`).Draw(t, "s")
		limit := rapid.Int32Range(0, 2000).Draw(t, "limit")
		set := parseIntervals(s, limit)
		checkRuns(t, set)
		if n := len(set); n > 0 && (set[0].First < 0 || set[n-1].Last >= limit) {
			t.Fatalf("%q below %d: %q", s, limit, set)
		}
	})
}
