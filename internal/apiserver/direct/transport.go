package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// remoteAddr stands where servers expect the client's address.
const remoteAddr = "127.0.0.1:0"

// Transport is an http.RoundTripper that calls a handler.
type Transport struct {
	handler func(context.Context) (http.Handler, error)
}

// NewTransport returns a transport to the handler that the function returns at
// the time of each request; it may wait until there is one.
func NewTransport(handler func(context.Context) (http.Handler, error)) *Transport {
	return &Transport{handler: handler}
}

// RoundTrip implements http.RoundTripper. It returns once the handler has
// flushed or ended; the rest of the body follows as the handler writes it.
// Closing the body or ending the request's context ends the handler's context.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	handler, err := t.handler(req.Context())
	if err != nil {
		return nil, err
	}
	ctx, cancel := alone(req.Context())
	w := newResponseWriter(ctx)
	inner := req.Clone(ctx)
	inner.RequestURI = req.URL.RequestURI()
	inner.RemoteAddr = remoteAddr
	inner.Proto, inner.ProtoMajor, inner.ProtoMinor = "HTTP/2.0", 2, 0
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	if inner.Host == "" {
		inner.Host = req.URL.Host
	}
	go func() {
		defer func() { w.finish(recover()) }()
		handler.ServeHTTP(w, inner)
	}()
	select {
	case <-w.started:
		return w.response(req, cancel), nil
	case <-req.Context().Done():
		cancel()
		return nil, req.Context().Err()
	}
}

// alone ends with ctx, of whose values it has none: ctx may be that of a request
// which the server is answering, and who asks there, or what is noted about it
// for the audit log, isn't this one's.
func alone(ctx context.Context) (context.Context, context.CancelFunc) {
	var cancel context.CancelFunc
	inner := context.Background()
	if end, ok := ctx.Deadline(); ok {
		inner, cancel = context.WithDeadline(inner, end)
	} else {
		inner, cancel = context.WithCancel(inner)
	}
	stop := context.AfterFunc(ctx, cancel)
	return inner, func() { stop(); cancel() }
}

// body ends the request's context when the client is through with it.
type body struct {
	io.Reader
	close  func() error
	cancel context.CancelFunc
}

func (b *body) Close() error {
	b.cancel()
	return b.close()
}

// handlerPanic is what a client reads when the handler panicked. Servers use
// http.ErrAbortHandler to break off an answer.
func handlerPanic(reason any) error {
	if err, ok := reason.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the handler panicked: %v", reason)
}
