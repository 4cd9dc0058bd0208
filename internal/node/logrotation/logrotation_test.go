package logrotation

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testingclock "k8s.io/utils/clock/testing"
)

// runtime has one container, whose log it makes when asked to.
type runtime struct {
	path     string
	reopened int
	err      error
}

func (r *runtime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return []*runtimeapi.Container{{Id: "a"}}, nil
}

func (r *runtime) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{LogPath: r.path}}, nil
}

func (r *runtime) ReopenContainerLog(context.Context, string) error {
	if r.err != nil {
		return r.err
	}
	r.reopened++
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND, logMode)
	if err != nil {
		return err
	}
	return f.Close()
}

func TestRotate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before map[string]string
		err    error // of the runtime's
		want   map[string]string
	}{
		{"small", map[string]string{"": "1234"}, nil, map[string]string{"": "1234"}},
		{"large", map[string]string{"": "12345"}, nil, map[string]string{"": "", ".20260102-150405": "12345"}},
		{
			"again", map[string]string{"": "12345", ".20260102-150305": "old"}, nil,
			map[string]string{"": "", ".20260102-150305.gz": "old", ".20260102-150405": "12345"},
		},
		{
			"too many", map[string]string{"": "12345", ".20260102-150205.gz": "oldest", ".20260102-150305": "old"}, nil,
			map[string]string{"": "", ".20260102-150305.gz": "old", ".20260102-150405": "12345"},
		},
		{
			"the clock has gone back", map[string]string{"": "12345", ".20260102-160000.000001": "old"}, nil,
			map[string]string{"": "", ".20260102-160000.000001.gz": "old", ".20260102-160000.000002": "12345"},
		},
		{
			"a compression was cut off", map[string]string{"": "12345", ".20260102-150305": "old", ".20260102-150305.gz.tmp": "ol"}, nil,
			map[string]string{"": "", ".20260102-150305.gz": "old", ".20260102-150405": "12345"},
		},
		{
			"a rotation was cut off", map[string]string{".20260102-150305": "old"}, nil,
			map[string]string{"": "", ".20260102-150305": "old"},
		},
		{"the runtime fails", map[string]string{"": "12345"}, errors.New("no"), map[string]string{"": "12345"}},
		{"others' files", map[string]string{"": "12345", ".notes": "x"}, nil, map[string]string{"": "", ".notes": "x", ".20260102-150405": "12345"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			for suffix, content := range tc.before {
				write(t, path+suffix, content)
			}
			r, err := New(Config{
				Runtime: &runtime{path: path, err: tc.err}, MaxSize: 5, MaxFiles: 3,
				Clock: testingclock.NewFakeClock(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)),
			})
			if err != nil {
				t.Fatal(err)
			}
			r.look(t.Context())
			if diff := cmp.Diff(tc.want, read(t, path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is compressed says of which file: who follows the log looks for that.
func TestComment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log.20260102-150405")
	write(t, path, "x")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := compress(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path + gzSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint("inode ", info.Sys().(*syscall.Stat_t).Ino); z.Comment != want {
		t.Errorf("the comment is %q, want %q", z.Comment, want)
	}
}

// Looks come every ten seconds, and end with the context.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, "12345")
	clock := testingclock.NewFakeClock(time.Now())
	r, err := New(Config{Runtime: &runtime{path: path}, MaxSize: 5, MaxFiles: 2, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for !clock.HasWaiters() {
		time.Sleep(time.Millisecond) // a fake clock tells nobody
	}
	clock.Step(period)
	for names := []string{}; len(names) < 2; {
		time.Sleep(time.Millisecond) // nor does a directory
		var err error
		if names, err = filepath.Glob(path + "*"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	var b strings.Builder
	if strings.HasSuffix(path, gzSuffix) {
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		content = b.String()
	}
	if err := os.WriteFile(path, []byte(content), logMode); err != nil {
		t.Fatal(err)
	}
}

// read returns the log's files by what follows the log's name.
func read(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var from io.Reader = f
		if strings.HasSuffix(name, gzSuffix) {
			if from, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		content, err := io.ReadAll(from)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(name, path)] = string(content)
	}
	return files
}
