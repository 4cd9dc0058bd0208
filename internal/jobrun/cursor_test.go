package jobrun

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// What passes over a log find new, by its lines' times. A pass that ends in "…" breaks
// off there.
func TestCursor(t *testing.T) {
	const (
		a, a2, b, c = "2026-01-01T00:00:01Z a\n", "2026-01-01T00:00:01Z a2\n", "2026-01-01T00:00:02Z b\n", "2026-01-01T00:00:03Z c\n"
	)
	for name, tc := range map[string]struct {
		before string   // the log of the run before
		passes []string // over this one's
		want   string
	}{
		"once":                           {"", []string{a + b}, "a\nb\n"},
		"again":                          {"", []string{a + b, a + b + c}, "a\nb\nc\n"},
		"again from a later time on":     {"", []string{a + b, b + c}, "a\nb\nc\n"},
		"two of a time, one of them had": {"", []string{a, a + a2 + b}, "a\na2\nb\n"},
		"two of a time, both had":        {"", []string{a + a2, a + a2 + b}, "a\na2\nb\n"},
		"broken off in a line":           {"", []string{a + b[:len(b)-1], a + b + c}, "a\nb\nc\n"},
		"broken off before a line's end": {"", []string{a + "2026-01-01T00:00:02Z …", a + b}, "a\nb\n"},
		"the next run's first":           {"", []string{b + c, a}, "b\nc\na\n"},
		"behind the run before":          {a + b, []string{a + b + c}, "c\n"},
		"without times":                  {"", []string{"x\n"}, "x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			read := func(s *stream, log string) {
				var body io.Reader = strings.NewReader(log)
				if kept, broken := strings.CutSuffix(log, "…"); broken {
					body = io.MultiReader(strings.NewReader(kept), iotest.ErrReader(errors.New("reset")))
				}
				if err := s.copyFrom(body); err != nil && !strings.HasSuffix(log, "…") {
					t.Fatal(err)
				}
			}
			l := &logs{output: NewOutput(&out, io.Discard, "")}
			before, this := &stream{logs: l}, &stream{logs: l}
			read(before, tc.before)
			this.cursor.behind(&before.cursor)
			out.Reset()
			for _, log := range tc.passes {
				read(this, log)
			}
			if got := out.String(); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
