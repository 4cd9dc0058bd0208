// Package control lets errand's own commands reach the running errand serve:
// HTTP on a unix socket that only its owner may open. Everything that
// Kubernetes has an API for goes there; this is for the rest: the image store,
// and where the time of recent pods went.
//
// An answer that takes a while is a stream of JSON lines: progress, then one
// result or one error.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"errand.dev/errand/internal/podtrace"
)

// Image is one image as the commands show it.
type Image struct {
	ID          string   `json:"id"`
	RepoTags    []string `json:"repoTags,omitempty"`
	RepoDigests []string `json:"repoDigests,omitempty"`
	Size        int64    `json:"size"` // bytes, compressed
	// PulledAt is zero where the runtime doesn't tell.
	PulledAt time.Time `json:"pulledAt,omitzero"`
}

// Progress is how far a call has come.
type Progress struct {
	// Step is what is being done, in words for people.
	Step string `json:"step"`
	// Done bytes of it are; of Total, or of 0 where that isn't known.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
}

// Images is the image store as the commands use it. All methods may be called
// concurrently. progress is called from any goroutine, many times a second,
// but never twice at once; it may be nil.
type Images interface {
	List(ctx context.Context) ([]Image, error)
	Pull(ctx context.Context, ref string, progress func(Progress)) (Image, error)
	Load(ctx context.Context, archive io.Reader, progress func(Progress)) ([]Image, error)
	// Remove removes a name, or by its ID a whole image. An image that isn't
	// there is an error.
	Remove(ctx context.Context, ref string) error
}

// Traces is the record of where recent pods' time went, as the commands use it.
type Traces interface {
	// Trace returns that of the last pod of the name. The error is ErrNoTrace
	// where there is none.
	Trace(ctx context.Context, namespace, name string) (*podtrace.Trace, error)
}

// ErrNoTrace says that nothing is recorded of a pod.
var ErrNoTrace = errors.New("nothing is recorded of the pod")

// socketName is the socket's file in the runtime directory.
const socketName = "control.sock"

// event is one line of a streamed answer; exactly one field is set.
type event struct {
	Progress *Progress `json:"progress,omitempty"`
	Error    string    `json:"error,omitempty"`
	Images   []Image   `json:"images,omitempty"`
	Done     bool      `json:"done,omitempty"`
}

// Server serves the socket.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen makes the socket in runtimeDir, replacing what a crash left. The
// caller holds the data directory, so no other errand serves there.
func Listen(runtimeDir string, images Images, traces Traces) (*Server, error) {
	path := filepath.Join(runtimeDir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	h := &handler{images: images, traces: traces}
	mux.HandleFunc("GET /images", h.list)
	mux.HandleFunc("POST /images/pull", h.pull)
	mux.HandleFunc("POST /images/load", h.load)
	mux.HandleFunc("POST /images/remove", h.remove)
	mux.HandleFunc("GET /traces/{namespace}/{pod}", h.trace)
	return &Server{listener: l, http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}}, nil
}

// Run serves until ctx ends; calls under way are cut off.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

type handler struct {
	images Images
	traces Traces
}

func (h *handler) trace(w http.ResponseWriter, r *http.Request) {
	t, err := h.traces.Trace(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	switch {
	case errors.Is(err, ErrNoTrace):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(t) // a caller that's gone has no use for it
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	stream(w, func(func(Progress)) ([]Image, error) { return h.images.List(r.Context()) })
}

func (h *handler) pull(w http.ResponseWriter, r *http.Request) {
	stream(w, func(progress func(Progress)) ([]Image, error) {
		img, err := h.images.Pull(r.Context(), r.URL.Query().Get("ref"), progress)
		return []Image{img}, err
	})
}

func (h *handler) load(w http.ResponseWriter, r *http.Request) {
	// Progress is written while the archive is still being read.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	stream(w, func(progress func(Progress)) ([]Image, error) {
		return h.images.Load(r.Context(), r.Body, progress)
	})
	// In full duplex, net/http panics over what is left of the body. A caller that
	// has heard of a failure sends no more.
	_, _ = io.Copy(io.Discard, r.Body)
}

func (h *handler) remove(w http.ResponseWriter, r *http.Request) {
	stream(w, func(func(Progress)) ([]Image, error) {
		return nil, h.images.Remove(r.Context(), r.URL.Query().Get("ref"))
	})
}

// stream writes what do tells and returns as JSON lines.
func stream(w http.ResponseWriter, do func(progress func(Progress)) ([]Image, error)) {
	events := make(chan event)
	go func() {
		defer close(events)
		images, err := do(func(p Progress) { events <- event{Progress: &p} })
		if err != nil {
			events <- event{Error: err.Error()}
			return
		}
		events <- event{Images: images, Done: true}
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	for e := range events {
		// A caller that went away ends the request's context, and with it the
		// work; what it still says is read to its end.
		if enc.Encode(e) == nil {
			_ = flush.Flush()
		}
	}
}
