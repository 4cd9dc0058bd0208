package crilog

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 1, 2, 15, 4, 5, 60, time.FixedZone("", 3600))

const stamp = "2026-01-02T14:04:05.000000060Z"

func TestSplitter(t *testing.T) {
	for _, tc := range []struct {
		name   string
		chunks []string
		want   []string // tag and content
	}{
		{"whole lines", []string{"a\nb\n"}, []string{"F a", "F b"}},
		{"an empty line", []string{"\n"}, []string{"F "}},
		{"a line in pieces", []string{"a", "b", "c\nd\n"}, []string{"F abc", "F d"}},
		{"no newline at the end", []string{"a\nb"}, []string{"F a", "P b"}},
		{"nothing", []string{""}, nil},
		{"exactly the longest", []string{"12345678\n"}, []string{"F 12345678"}},
		{"exactly the longest in pieces", []string{"1234", "5678", "\n"}, []string{"F 12345678"}},
		{"one more", []string{"123456789\n"}, []string{"P 12345678", "F 9"}},
		{"twice the longest", []string{"1234567812345678\n"}, []string{"P 12345678", "F 12345678"}},
		{"long, in pieces", []string{"123", "45678123", "4567812\nx"}, []string{"P 12345678", "P 12345678", "F 12", "P x"}},
		{"binary", []string{"\x00\xff\r\n"}, []string{"F \x00\xff\r"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(Stderr, 8)
			var got []byte
			for _, c := range tc.chunks {
				var n int
				if got, n = s.Append(got, []byte(c), at, math.MaxInt); n != len(c) {
					t.Fatalf("took %d of %q", n, c)
				}
			}
			got = s.Flush(got, at)
			var want strings.Builder
			for _, w := range tc.want {
				want.WriteString(stamp + " stderr " + w + "\n")
			}
			if diff := cmp.Diff(want.String(), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAppendStopsAtLimit(t *testing.T) {
	s := New(Stdout, 0)
	chunk := bytes.Repeat([]byte("\n"), 1000)
	var records, calls int
	for len(chunk) > 0 {
		out, n := s.Append(nil, chunk, at, 500)
		if len(out) > 500+MaxRecord(0) {
			t.Fatalf("%d bytes for a limit of 500", len(out))
		}
		records += bytes.Count(out, []byte("\n"))
		chunk = chunk[n:]
		calls++
	}
	if records != 1000 || calls < 10 {
		t.Errorf("%d records in %d calls", records, calls)
	}
}

func TestIdleSplitterHoldsNoLargeBuffer(t *testing.T) {
	s := New(Stdout, 0)
	s.Append(nil, make([]byte, 10<<10), at, math.MaxInt)
	s.Append(nil, []byte("\n"), at, math.MaxInt)
	if cap(s.rest) > 1<<10 {
		t.Errorf("an idle splitter holds %d bytes", cap(s.rest))
	}
}

// FuzzSplitter checks that whatever the pieces, the contents put together again are the output, and that no record is longer
// than allowed.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("hello\nworld"), uint8(3), uint8(4), uint16(0))
	f.Add([]byte("0000000000000"), uint8(3), uint8(4), uint16(0))
	f.Add([]byte("\n\n\n"), uint8(1), uint8(1), uint16(10))
	f.Add(bytes.Repeat([]byte("x"), 300), uint8(250), uint8(7), uint16(100))
	f.Fuzz(func(t *testing.T, in []byte, maxLine, piece uint8, limit uint16) {
		if maxLine == 0 || piece == 0 {
			return
		}
		s := New(Stdout, int(maxLine))
		var out []byte
		for rest := in; len(rest) > 0; {
			chunk := rest[:min(int(piece), len(rest))]
			rest = rest[len(chunk):]
			for len(chunk) > 0 {
				var n int
				before := len(out)
				out, n = s.Append(out, chunk, at, before+int(limit))
				if n == 0 && len(out) == before {
					t.Fatal("no progress")
				}
				chunk = chunk[n:]
			}
		}
		out = s.Flush(out, at)
		if got := join(t, out, int(maxLine)); !bytes.Equal(got, in) {
			t.Fatalf("got %q, want %q", got, in)
		}
	})
}

func join(t *testing.T, log []byte, maxLine int) (content []byte) {
	prefix := []byte(stamp + " stdout ")
	for len(log) > 0 {
		rest, ok := bytes.CutPrefix(log, prefix)
		if !ok || rest[1] != ' ' {
			t.Fatalf("malformed record at %q", log[:min(80, len(log))])
		}
		line, after, ok := bytes.Cut(rest[2:], []byte("\n"))
		if !ok || len(line) > maxLine {
			t.Fatalf("record of %d bytes, the limit is %d", len(line), maxLine)
		}
		content = append(content, line...)
		switch rest[0] {
		case 'F':
			content = append(content, '\n')
		case 'P':
		default:
			t.Fatalf("tag %q", rest[0])
		}
		log = after
	}
	return content
}

func BenchmarkSplitter(b *testing.B) {
	for _, line := range []int{10, 100, 10000} {
		b.Run(strconv.Itoa(line), func(b *testing.B) {
			chunk := bytes.Repeat(append(bytes.Repeat([]byte("x"), line-1), '\n'), 1+(64<<10)/line)[:64<<10]
			s := New(Stdout, 0)
			var out []byte
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				out, _ = s.Append(out[:0], chunk, at, math.MaxInt)
			}
		})
	}
}
