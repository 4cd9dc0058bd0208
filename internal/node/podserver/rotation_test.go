package podserver

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// rotator rotates a world's log as errand-shim does.
type rotator struct {
	*world
	stamps     []string
	compressed int // how many of them are
}

func (r *rotator) rotate(t *testing.T) {
	t.Helper()
	stamp := fmt.Sprintf(".20260102-150405.%06d", len(r.stamps))
	if err := os.Rename(r.log, r.log+stamp); err != nil {
		t.Fatal(err)
	}
	r.stamps = append(r.stamps, stamp)
	r.write(t, "")
}

// compress compresses the oldest file that isn't, but never the newest.
func (r *rotator) compress(t *testing.T) {
	t.Helper()
	if r.compressed >= len(r.stamps)-1 {
		return
	}
	path := r.log + r.stamps[r.compressed]
	r.compressed++
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path + ".gz.tmp")
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	z.Comment = fmt.Sprint("inode ", info.Sys().(*syscall.Stat_t).Ino)
	_, err = z.Write(text)
	err = errors.Join(err, z.Close(), f.Close(),
		os.Rename(f.Name(), path+".gz"), os.Remove(path))
	if err != nil {
		t.Fatal(err)
	}
}

// However far the reader is behind, it reads each line once, through rotations
// and compressions.
func TestFollowIsExactThroughRotations(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			w := &rotator{world: newWorld(t)}
			w.write(t, "")
			f := w.follow(t, "")
			var all strings.Builder
			read := 0
			for i := range 200 {
				switch n := random.IntN(20); {
				case n < 4:
					w.rotate(t)
				case n < 8:
					w.compress(t)
				case n == 8: // it catches up
					f.want(t, all.String()[read:])
					read = all.Len()
				default:
					fmt.Fprintf(&all, "line %d\n", i)
					w.write(t, fmt.Sprintf("2026-01-01T00:00:01Z stdout P li\n2026-01-01T00:00:01Z stdout F ne %d\n", i))
				}
			}
			w.cri.exit()
			f.want(t, all.String()[read:])
			f.wantEnd(t)
		})
	}
}

// What was removed before it was read is missing; all that is there is read.
func TestFollowAfterRemoval(t *testing.T) {
	w := &rotator{world: newWorld(t)}
	line := func(text string) { w.write(t, "2026-01-01T00:00:01Z stdout F "+text+"\n") }
	line("one")
	root, err := os.OpenRoot(strings.TrimSuffix(w.log, "/ns_p_uid-1/c/0.log"))
	if err != nil {
		t.Fatal(err)
	}
	log := &logFile{root: root, name: "ns_p_uid-1/c/0.log", path: w.log}
	defer log.close()
	if err := log.begin(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"two", "three", "four"} {
		w.rotate(t)
		line(text)
	}
	for _, stamp := range w.stamps[:2] {
		if err := os.Remove(w.log + stamp); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"three", "four"} {
		if moved, err := log.advance(); !moved || err != nil {
			t.Fatalf("no file for %s: %v", want, err)
		}
		if text, err := io.ReadAll(log.file); err != nil || !strings.HasSuffix(string(text), want+"\n") {
			t.Errorf("%q, %v; want %s", text, err, want)
		}
	}
	if moved, err := log.advance(); moved || err != nil {
		t.Errorf("after the last: %v, %v", moved, err)
	}
}

// Reading is of the present file alone, as on any node; for the moment in which a
// rotation has no present file, of the one that was.
func TestReadRotatedLogs(t *testing.T) {
	w := &rotator{world: newWorld(t)}
	w.write(t, "2026-01-01T00:00:01Z stdout F one\n")
	w.rotate(t)
	w.write(t, "2026-01-01T00:00:02Z stdout F two\n")
	if code, got := w.get(t, "/containerLogs/ns/p/c"); code != http.StatusOK || got != "two\n" {
		t.Errorf("%d %q", code, got)
	}
	if err := os.Remove(w.log); err != nil {
		t.Fatal(err)
	}
	if code, got := w.get(t, "/containerLogs/ns/p/c"); code != http.StatusOK || got != "one\n" {
		t.Errorf("between two files: %d %q", code, got)
	}
}
