// Package registry serves container images from loopback, for tests and demonstrations on machines without a network: a registry
// (go-containerregistry's), images built from the host's static busybox, ways to make the registry misbehave, and the
// registries.conf that leads docker.io, or whatever is named, to it.
//
// It is a fixture. It keeps no access control worth the name and must not serve anything but loopback.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Options are how a Server is started. The zero value serves from memory on any free port.
type Options struct {
	// Listen is the address; "" means 127.0.0.1:0. Only loopback addresses are taken.
	Listen string
	// Dir keeps blobs on disk; "" means in memory.
	Dir string
}

// Server is a running registry.
type Server struct {
	listener net.Listener
	server   *http.Server
	handler  http.Handler
	done     chan struct{}
	// stopping ends handlers that hang on purpose.
	stopping context.Context
	stop     context.CancelFunc

	mu       sync.Mutex
	faults   []fault
	requests []string
}

// Start starts a registry. The caller closes it.
func Start(opts Options) (*Server, error) {
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("test registry: %w", err)
	}
	if addr, ok := listener.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("test registry: %s is not a loopback address", opts.Listen), listener.Close())
	}
	quiet := log.New(io.Discard, "", 0)
	blobs := registry.NewInMemoryBlobHandler()
	if opts.Dir != "" {
		if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("test registry: %w", err)
		}
		blobs = registry.NewDiskBlobHandler(opts.Dir)
	}
	s := &Server{
		listener: listener,
		handler:  registry.New(registry.Logger(quiet), registry.WithBlobHandler(blobs)),
		done:     make(chan struct{}),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.server = &http.Server{Handler: s, ErrorLog: quiet}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // ends with Close
	}()
	return s, nil
}

// Addr is the host:port served.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the server and every connection to it.
func (s *Server) Close() error {
	s.stop()
	err := s.server.Close()
	<-s.done
	return err
}

// ServeHTTP implements http.Handler: it notes the request, applies the fault that fits, if any, and lets the registry answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	var found Fault
	for i := range s.faults {
		if f := &s.faults[i]; f.times != 0 && f.match(r) {
			f.times--
			found = f.fault
			break
		}
	}
	s.mu.Unlock()
	next := http.HandlerFunc(s.serveRange)
	if found == nil {
		next(w, r)
		return
	}
	found(w, r.WithContext(s.whileServing(r.Context())), next)
}

// whileServing derives a context that also ends with the server.
func (s *Server) whileServing(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(s.stopping, cancel)
	return ctx
}

// serveRange answers requests for "from byte N to the end", which real registries do and this one's library doesn't.
func (s *Server) serveRange(w http.ResponseWriter, r *http.Request) {
	if from, ok := strings.CutSuffix(r.Header.Get("Range"), "-"); ok && r.Method == http.MethodGet {
		head := r.Clone(r.Context())
		head.Method = http.MethodHead
		head.Header.Del("Range")
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, head)
		var size int64
		if _, err := fmt.Sscan(rec.Header().Get("Content-Length"), &size); err == nil {
			r = r.Clone(r.Context())
			r.Header.Set("Range", fmt.Sprintf("%s-%d", from, size-1))
		}
	}
	s.handler.ServeHTTP(w, r)
}

// Requests returns every request so far as "METHOD /path".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Count returns how many requests so far were of the method and had part in their path.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if m, path, _ := strings.Cut(r, " "); m == method && strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// Image is a v1.Image or a v1.ImageIndex.
type Image interface{ remote.Taggable }

// Push stores an image under repository:tag ("library/busybox:latest"). Faults don't apply to it.
func (s *Server) Push(ref string, img Image) error {
	parsed, err := name.ParseReference(s.Addr()+"/"+ref, name.Insecure)
	if err != nil {
		return fmt.Errorf("test registry: %w", err)
	}
	transport := remote.WithTransport(handlerTransport{s.handler})
	switch img := img.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(parsed, img, transport)
	case v1.Image:
		err = remote.Write(parsed, img, transport)
	default:
		err = remote.Put(parsed, img, transport)
	}
	if err != nil {
		return fmt.Errorf("test registry: push %s: %w", ref, err)
	}
	return nil
}

// handlerTransport asks a handler in this process.
type handlerTransport struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	t.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// WriteRegistriesConf writes a registries.conf to path that leads every image of the hosts, or of docker.io where none is named, here,
// and only here: nothing is asked of the internet.
func (s *Server) WriteRegistriesConf(path string, hosts ...string) error {
	if len(hosts) == 0 {
		hosts = []string{"docker.io"}
	}
	var conf strings.Builder
	for _, host := range hosts {
		fmt.Fprintf(&conf, "# Images of %[2]s come from the registry at %[1]s, and from nowhere else.\n[[registry]]\nprefix = %[2]q\nlocation = %[1]q\ninsecure = true\n", s.Addr(), host)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("test registry: %w", err)
	}
	if err := os.WriteFile(path, []byte(conf.String()), 0o644); err != nil {
		return fmt.Errorf("test registry: %w", err)
	}
	return nil
}
