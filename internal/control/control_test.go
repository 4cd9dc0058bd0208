package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"errand.dev/errand/internal/podtrace"
)

// store is an Images in memory that tells its progress byte by byte.
type store struct {
	images map[string]Image
	// began and ended tell of a pull of "hang".
	began, ended chan struct{}
	// refuse makes Load fail before it has read a byte.
	refuse bool
}

func (s *store) List(context.Context) ([]Image, error) {
	var out []Image
	for _, i := range s.images {
		out = append(out, i)
	}
	return out, nil
}

func (s *store) Pull(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	if ref == "hang" {
		close(s.began)
		<-ctx.Done()
		close(s.ended)
		return Image{}, ctx.Err()
	}
	progress(Progress{Step: "pulling " + ref, Done: 3, Total: 7})
	s.images[ref] = Image{ID: "sha256:1", RepoTags: []string{ref}, Size: 7, PulledAt: time.Unix(1, 0).UTC()}
	return s.images[ref], nil
}

func (s *store) Load(_ context.Context, r io.Reader, progress func(Progress)) ([]Image, error) {
	b := make([]byte, 1)
	for {
		if s.refuse {
			return nil, errors.New("no archive")
		}
		_, err := r.Read(b)
		if errors.Is(err, io.EOF) {
			return []Image{{ID: "sha256:2"}}, nil
		}
		if err != nil {
			return nil, err
		}
		progress(Progress{Step: "read " + string(b)})
	}
}

func (s *store) Remove(_ context.Context, ref string) error {
	if _, ok := s.images[ref]; !ok {
		return errors.New("no such image: " + ref)
	}
	delete(s.images, ref)
	return nil
}

func (s *store) Trace(_ context.Context, namespace, name string) (*podtrace.Trace, error) {
	switch name {
	case "known":
		return &podtrace.Trace{Identity: podtrace.Identity{Namespace: namespace, Name: name}, Steps: []podtrace.Step{{Name: "x"}}}, nil
	case "broken":
		return nil, errors.New("no memory")
	}
	return nil, ErrNoTrace
}

func TestTrace(t *testing.T) {
	c, _ := start(t)
	if got, err := c.Trace(t.Context(), "ns", "known"); err != nil || got.Namespace != "ns" || len(got.Steps) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Trace(t.Context(), "ns", "none"); !errors.Is(err, ErrNoTrace) || !strings.HasSuffix(err.Error(), ": ns/none") {
		t.Errorf("%v", err)
	}
	if _, err := c.Trace(t.Context(), "ns", "broken"); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("%v", err)
	}
	if _, err := NewClient(t.TempDir()).Trace(t.Context(), "ns", "known"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

func start(t *testing.T) (*Client, *store) {
	t.Helper()
	c, s, _ := startLogged(t)
	return c, s
}

// startLogged gives what the server complained about, too.
func startLogged(t *testing.T) (*Client, *store, *bytes.Buffer) {
	t.Helper()
	var complaints bytes.Buffer
	dir, err := os.MkdirTemp("/tmp", "control-")
	if err != nil {
		t.Fatal(err)
	}
	s := &store{images: map[string]Image{}, began: make(chan struct{}), ended: make(chan struct{})}
	server, err := Listen(dir, s, s)
	if err != nil {
		t.Fatal(err)
	}
	server.http.ErrorLog = log.New(&complaints, "", 0)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		os.RemoveAll(dir)
	})
	return NewClient(dir), s, &complaints
}

func TestImages(t *testing.T) {
	c, s := start(t)
	var said []Progress
	say := func(p Progress) { said = append(said, p) }

	got, err := c.Pull(t.Context(), "busybox:latest", say)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.images["busybox:latest"], got); diff != "" {
		t.Errorf("Pull (-want +got):\n%s", diff)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v", list, err)
	}
	// The archive comes while progress goes: the writer waits for each answer.
	r, w := io.Pipe()
	answered := make(chan struct{})
	go func() {
		w.Write([]byte("a"))
		<-answered
		w.Close()
	}()
	loaded, err := c.Load(t.Context(), r, func(p Progress) {
		say(p)
		close(answered)
	})
	if err != nil || len(loaded) != 1 {
		t.Errorf("Load = %v, %v", loaded, err)
	}
	if want := []Progress{{Step: "pulling busybox:latest", Done: 3, Total: 7}, {Step: "read a"}}; !slices.Equal(said, want) {
		t.Errorf("progress %v, want %v", said, want)
	}
	if err := c.Remove(t.Context(), "busybox:latest"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), "busybox:latest"); err == nil || !strings.Contains(err.Error(), "no such image: busybox:latest") {
		t.Errorf("second Remove: %v", err)
	}
}

func TestACallersEndIsTheWorksEnd(t *testing.T) {
	c, s := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.began
		cancel()
	}()
	if _, err := c.Pull(ctx, "hang", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull: %v", err)
	}
	<-s.ended
}

// The server used to panic over an archive that was not read to its end, on the
// way to the connection's next request.
func TestARefusedArchiveDoesNoHarm(t *testing.T) {
	c, s, complaints := startLogged(t)
	s.refuse = true
	for range 20 {
		if _, err := c.Load(t.Context(), strings.NewReader("x"), nil); err == nil || err.Error() != "no archive" {
			t.Errorf("Load: %v", err)
		}
		if _, err := c.List(t.Context()); err != nil {
			t.Errorf("List after it: %v", err)
		}
	}
	// An endless one is not waited for.
	r, w := io.Pipe()
	defer w.Close()
	if _, err := c.Load(t.Context(), r, nil); err == nil || err.Error() != "no archive" {
		t.Errorf("Load of an endless archive: %v", err)
	}
	if complaints.Len() > 0 {
		t.Errorf("the server complained:\n%s", complaints)
	}
}

func TestNotRunning(t *testing.T) {
	if _, err := NewClient(t.TempDir()).List(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("List without a server: %v", err)
	}
	if err := NewClient(t.TempDir()).Reach(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Reach without a server: %v", err)
	}
	c, _ := start(t)
	if err := c.Reach(t.Context()); err != nil {
		t.Errorf("Reach: %v", err)
	}
}
