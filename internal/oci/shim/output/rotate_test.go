package output

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"errand.dev/errand/internal/oci/shim/crilog"
)

// clock is the time that a log sees; each reading moves it on.
type clock struct {
	at   time.Time
	step time.Duration
}

func (c *clock) now() time.Time {
	c.at = c.at.Add(c.step)
	return c.at
}

func newRotating(t testing.TB, limits LogLimits, step time.Duration) (*LogFile, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	l, err := OpenLog(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{at: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), step: step}
	l.now, l.begun = c.now, c.at
	return l, path
}

// files are the directory's, by name without the log's.
func files(t testing.TB, path string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		all[strings.TrimPrefix(e.Name(), "0.log")] = read(t, filepath.Join(filepath.Dir(path), e.Name()))
	}
	return all
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, gzSuffix) {
		return string(data)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// chain joins the files of a log, oldest first.
func chain(t testing.TB, path string) string {
	t.Helper()
	all := files(t, path)
	var b strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, gzSuffix), strings.TrimSuffix(b, gzSuffix))
	}) {
		if name != "" {
			b.WriteString(all[name])
		}
	}
	return b.String() + all[""]
}

// However records come, no file exceeds its size, there are never too many, and what they hold is the end of what was
// written, whole and in order.
func TestRotation(t *testing.T) {
	for name, limits := range map[string]LogLimits{
		"two": {MaxSize: 100, MaxFiles: 2}, "five": {MaxSize: 1000, MaxFiles: 5}, "many": {MaxSize: 64, MaxFiles: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			l, path := newRotating(t, limits, time.Millisecond)
			defer l.Close()
			var all strings.Builder
			for i := range 300 {
				var batch strings.Builder
				for j := range i % 7 {
					fmt.Fprintf(&batch, "%d.%d %s\n", i, j, strings.Repeat("x", i*j%40))
				}
				all.WriteString(batch.String())
				l.write([]byte(batch.String()))
			}
			kept := files(t, path)
			for name, text := range kept {
				if int64(len(text)) > limits.MaxSize {
					t.Errorf("%s has %d bytes", name, len(text))
				}
			}
			got := chain(t, path)
			if !strings.HasSuffix(all.String(), got) || len(kept) > limits.MaxFiles ||
				name != "many" && len(kept) != limits.MaxFiles || name == "many" && got != all.String() {
				t.Errorf("%d files hold %d of %d bytes", len(kept), len(got), all.Len())
			}
		})
	}
}

func TestRotationOfLongRecords(t *testing.T) {
	l, path := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 5}, time.Second)
	defer l.Close()
	l.write([]byte("short\n"))
	l.write([]byte("longer than a file\nshort\n"))
	l.write([]byte("end\n"))
	want := map[string]string{"": "short\nend\n", ".20260102-150407": "short\n", ".20260102-150410": "longer than a file\n"}
	if got := files(t, path); !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// What stands in the way of rotation doesn't stand in the way of the container.
func TestRotationFails(t *testing.T) {
	l, path := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 2}, time.Second)
	defer l.Close()
	l.write([]byte("one\n"))
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		l.write([]byte("lost\n"))
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l.write([]byte("lost\nlost\n"))
	l.write([]byte("seen\n"))
	if got := files(t, path)[""]; !strings.HasSuffix(got, "seen\n") {
		t.Errorf("%q", got)
	}
	// Nor does it rotate a file that somebody has emptied.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	l.write([]byte("1\n2\n3\n4\n"))
	if got := files(t, path); len(got) != 1 || got[""] != "1\n2\n3\n4\n" {
		t.Errorf("after truncation: %q", got)
	}
}

func TestOldLogsAreCompressed(t *testing.T) {
	p := newPump(t)
	l, path := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 5}, time.Second)
	defer l.Close()
	var all strings.Builder
	for i := range 8 {
		fmt.Fprintf(&all, "line %d\n", i)
		if l.write(fmt.Appendf(nil, "line %d\n", i)) != (i > 0) {
			t.Errorf("rotation %d: compression is wrong", i)
		}
		if done := p.compress(l); done != nil {
			<-done
		}
	}
	got := files(t, path)
	if names := slices.Sorted(maps.Keys(got)); len(names) != 5 || names[0] != "" || strings.HasSuffix(names[4], gzSuffix) ||
		!strings.HasSuffix(names[1], gzSuffix) || !strings.HasSuffix(names[2], gzSuffix) || !strings.HasSuffix(names[3], gzSuffix) {
		t.Errorf("files %q", names)
	}
	if text := chain(t, path); text == "" || !strings.HasSuffix(all.String(), text) {
		t.Errorf("%q", text)
	}
}

// Files that come faster than compressing them pays are left alone.
func TestFastLogsAreNotCompressed(t *testing.T) {
	l, _ := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 5}, time.Millisecond)
	defer l.Close()
	for i := range 20 {
		if l.write([]byte("123456789\n")) {
			t.Errorf("after %d files", i)
		}
	}
}

// Who has a file open that was compressed meanwhile knows the other by the inode.
func TestCompressionNotesTheInode(t *testing.T) {
	l, _ := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 5}, time.Second)
	defer l.Close()
	for _, stamp := range []string{"20260101-000000", "20260101-000001"} {
		if err := os.WriteFile(l.oldPath(stamp), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := l.oldPath("20260101-000000")
	info, err := os.Stat(old)
	if err != nil {
		t.Fatal(err)
	}
	<-newPump(t).compress(l)
	f, err := os.Open(old + gzSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if want := fmt.Sprint("inode ", info.Sys().(*syscall.Stat_t).Ino); err != nil || z.Comment != want {
		t.Errorf("%q, %v; want %s", z.Comment, err, want)
	}
}

// A file that is removed, or whose log is closed, isn't compressed to the end, and leaves nothing.
func TestCompressionIsAbandoned(t *testing.T) {
	for name, abandon := range map[string]func(l *LogFile, old string) error{
		"removed": func(_ *LogFile, old string) error { return os.Remove(old) },
		"closed":  func(l *LogFile, _ string) error { l.Close(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l, path := newRotating(t, LogLimits{MaxSize: 10, MaxFiles: 5}, time.Second)
			old := path + ".20260101-000000"
			if err := os.WriteFile(old, []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			from, err := os.Open(old)
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			if err := os.WriteFile(old+gzSuffix+tmpSuffix, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := abandon(l, old); err != nil {
				t.Fatal(err)
			}
			if err := l.keepCompressed(from, old); !errors.Is(err, errUnneeded) {
				t.Errorf("at the end: %v", err)
			}
			if err := l.compressOne(gzip.NewWriter(io.Discard), old); err == nil {
				t.Error("another one was begun")
			}
			if _, err := os.Stat(old + gzSuffix); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the compressed file: %v", err)
			}
		})
	}
}

func TestStampsAscend(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 15, 4, second, 0, time.FixedZone("", 3600)) }
	for _, tc := range []struct {
		now        time.Time
		last, want string
	}{
		{at(5), "", "20260102-140405"},
		{at(6), "20260102-140405", "20260102-140406"},
		{at(6), "20260102-140405.000007", "20260102-140406"},
		{at(5), "20260102-140405", "20260102-140405.000001"},
		{at(5), "20260102-140405.000009", "20260102-140405.000010"},
		{at(1), "20260102-140405", "20260102-140405.000001"}, // the clock was set back
	} {
		if got := nextStamp(tc.now, tc.last); got != tc.want || got <= tc.last {
			t.Errorf("after %q: %q, want %q", tc.last, got, tc.want)
		}
	}
}

// Wherever the writer died, all is there once and under the log's name.
func TestRepairLog(t *testing.T) {
	const a, b = ".20260102-150405", ".20260102-150405.000001"
	for name, tc := range map[string]struct{ before, after map[string]string }{
		"nothing":           {map[string]string{}, map[string]string{}},
		"whole":             {map[string]string{"": "2", a: "1"}, map[string]string{"": "2", a: "1"}},
		"renamed":           {map[string]string{b: "2", a: "1"}, map[string]string{"": "2", a: "1"}},
		"compressing":       {map[string]string{"": "3", b: "2", a: "1", a + ".gz.tmp": "?"}, map[string]string{"": "3", b: "2", a: "1"}},
		"compressed":        {map[string]string{"": "3", b: "2", a: "1", a + ".gz": "z"}, map[string]string{"": "3", b: "2", a + ".gz": "z"}},
		"somebody else's":   {map[string]string{"": "1", ".bak": "x", ".tmp": "y"}, map[string]string{"": "1", ".bak": "x", ".tmp": "y"}},
		"of another's only": {map[string]string{".bak": "x"}, map[string]string{".bak": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			for suffix, text := range tc.before {
				if err := os.WriteFile(path+suffix, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := RepairLog(path); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				got[strings.TrimPrefix(e.Name(), "0.log")] = string(data)
			}
			if !maps.Equal(got, tc.after) {
				t.Errorf("%q, want %q", got, tc.after)
			}
		})
	}
	if err := RepairLog(filepath.Join(t.TempDir(), "gone", "0.log")); err != nil {
		t.Errorf("no directory: %v", err)
	}
}

// BenchmarkRotation moves output through a log of five files of 10 MiB.
func BenchmarkRotation(b *testing.B) {
	log, err := OpenLog(filepath.Join(b.TempDir(), "0.log"), LogLimits{MaxSize: 10 << 20, MaxFiles: 5})
	if err != nil {
		b.Fatal(err)
	}
	_, stdout, _ := open(b, newPump(b), Config{Log: log})
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 1+crilog.DefaultMaxLine*4/100))
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := stdout.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
