package direct

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
)

// responseWriter keeps what the handler writes until it flushes or ends. From
// the first flush on each write waits for the client to read it, as a slow
// connection would make it wait.
type responseWriter struct {
	ctx    context.Context
	header http.Header

	mu      sync.Mutex
	status  int
	sent    http.Header // header as it was when the status was written
	kept    bytes.Buffer
	stream  *io.PipeWriter // nil until the first flush
	reader  *io.PipeReader
	err     error // why the handler ended early
	started chan struct{}
	once    sync.Once
}

func newResponseWriter(ctx context.Context) *responseWriter {
	return &responseWriter{ctx: ctx, header: http.Header{}, started: make(chan struct{})}
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *responseWriter) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(status)
}

func (w *responseWriter) writeHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.sent = w.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(data []byte) (int, error) {
	w.mu.Lock()
	w.writeHeader(http.StatusOK)
	stream := w.stream
	if stream == nil {
		defer w.mu.Unlock()
		return w.kept.Write(data)
	}
	w.mu.Unlock()
	return stream.Write(data)
}

// Flush implements http.Flusher. It doesn't wait for the client.
func (w *responseWriter) Flush() {
	w.mu.Lock()
	w.writeHeader(http.StatusOK)
	if w.stream == nil {
		w.reader, w.stream = io.Pipe()
		// The body's Close unblocks a writer; so must the end of the context,
		// which the reader then learns of.
		context.AfterFunc(w.ctx, func() { _ = w.stream.CloseWithError(w.ctx.Err()) })
	}
	w.mu.Unlock()
	w.start()
}

// CloseNotify implements http.CloseNotifier, which the API server's response
// writers look for before they flush.
func (w *responseWriter) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.ctx, func() { gone <- true })
	return gone
}

func (w *responseWriter) start() { w.once.Do(func() { close(w.started) }) }

// finish is called when the handler has returned, or panicked with the reason
// given.
func (w *responseWriter) finish(reason any) {
	w.mu.Lock()
	w.writeHeader(http.StatusOK)
	if reason != nil {
		w.err = handlerPanic(reason)
	}
	if w.stream != nil {
		_ = w.stream.CloseWithError(w.err) // never fails
	}
	w.mu.Unlock()
	w.start()
}

// response may be called once started is closed.
func (w *responseWriter) response(req *http.Request, cancel context.CancelFunc) *http.Response {
	w.mu.Lock()
	defer w.mu.Unlock()
	resp := &http.Response{
		Status:        http.StatusText(w.status),
		StatusCode:    w.status,
		Proto:         "HTTP/2.0",
		ProtoMajor:    2,
		Header:        w.sent,
		ContentLength: -1,
		Request:       req,
	}
	// Nobody writes to the kept part any more: the handler has ended, or flushed.
	kept := bytes.NewReader(w.kept.Bytes())
	switch {
	case w.stream != nil:
		resp.Body = &body{Reader: io.MultiReader(kept, w.reader), close: w.reader.Close, cancel: cancel}
	case w.err != nil:
		resp.Body = &body{Reader: io.MultiReader(kept, &failingReader{w.err}), close: closeNothing, cancel: cancel}
	default:
		resp.ContentLength = int64(w.kept.Len())
		resp.Body = &body{Reader: kept, close: closeNothing, cancel: cancel}
	}
	return resp
}

func closeNothing() error { return nil }

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }
