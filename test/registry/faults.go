package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Fault answers a request wrongly. It may call next for the right answer.
type Fault func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)

type fault struct {
	match func(*http.Request) bool
	fault Fault
	times int // negative: forever
}

// Always is for AddFault's times.
const Always = -1

// AddFault makes f answer requests that match, so many times or Always. The fault that was added first wins.
func (s *Server) AddFault(match func(*http.Request) bool, times int, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault{match, f, times})
}

// ClearFaults makes the registry behave.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Any matches all requests.
func Any(*http.Request) bool { return true }

// Blob matches fetching the blob whose digest contains part ("" for all blobs).
func Blob(part string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		_, digest, ok := strings.Cut(r.URL.Path, "/blobs/")
		return ok && r.Method == http.MethodGet && strings.Contains(digest, part)
	}
}

// Manifest matches asking for or fetching any manifest.
func Manifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// Status answers with an HTTP status.
func Status(code int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		http.Error(w, http.StatusText(code), code)
	}
}

// Corrupt flips a bit of the byte at offset of the answer.s body.
func Corrupt(offset int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		at := int64(0)
		next(&bodyWriter{ResponseWriter: w, onWrite: func(p []byte) []byte {
			out := append([]byte(nil), p...)
			if i := offset - at; i >= 0 && i < int64(len(out)) {
				out[i] ^= 1
			}
			at += int64(len(p))
			return out
		}}, r)
	}
}

// Reset breaks the connection, with a TCP reset, after so many bytes of the answer's body.
func Reset(after int64) Fault {
	return cutAt(after, func(w http.ResponseWriter, _ context.Context) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	})
}

// Stall sends so many bytes of the answer's body and then nothing, until the client or the server goes.
func Stall(after int64) Fault {
	return cutAt(after, func(_ http.ResponseWriter, ctx context.Context) { <-ctx.Done() })
}

// cutAt sends so many bytes of the answer's body, calls then, and sends no more.
func cutAt(after int64, then func(http.ResponseWriter, context.Context)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		left := after
		cut := false
		next(&bodyWriter{ResponseWriter: w, onWrite: func(p []byte) []byte {
			if cut {
				return nil
			}
			if int64(len(p)) < left {
				left -= int64(len(p))
				return p
			}
			cut = true
			_, _ = w.Write(p[:left])
			_ = http.NewResponseController(w).Flush()
			then(w, r.Context())
			return nil
		}}, r)
	}
}

// Slow sends the answer's body at so many bytes a second.
func Slow(bytesPerSecond int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		next(&bodyWriter{ResponseWriter: w, onWrite: func(p []byte) []byte {
			for len(p) > 0 {
				n := min(len(p), max(bytesPerSecond/20, 1))
				_, _ = w.Write(p[:n])
				_ = http.NewResponseController(w).Flush()
				p = p[n:]
				tick := time.NewTimer(time.Second / 20)
				select {
				case <-tick.C:
				case <-r.Context().Done():
					tick.Stop()
					return nil
				}
			}
			return nil
		}}, r)
	}
}

// Hold keeps a request until release is closed, then answers it rightly.
func Hold(release <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		select {
		case <-release:
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

// BasicAuth demands a user and a password.
func BasicAuth(user, password string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			next(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test registry"`)
		unauthorized(w)
	}
}

// token is what TokenAuth's token service gives out.
const token = "test-token"

// TokenAuth demands a token, which a token service at /token gives to those who have the user's password, as Docker Hub does. It
// must match Any.
func (s *Server) TokenAuth(user, password string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		if r.URL.Path == "/token" {
			u, p, _ := r.BasicAuth()
			if r.Method == http.MethodPost && r.ParseForm() == nil {
				u, p = r.PostForm.Get("username"), r.PostForm.Get("password")
			}
			if u != user || p != password {
				unauthorized(w)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"token": %q, "access_token": %q}`, token, token)
			return
		}
		if r.Header.Get("Authorization") == "Bearer "+token {
			next(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, s.Addr()))
		unauthorized(w)
	}
}

func unauthorized(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

// bodyWriter passes an answer's body through onWrite, which returns what is left to write.
type bodyWriter struct {
	http.ResponseWriter
	onWrite func([]byte) []byte
}

// Write implements io.Writer. It always claims success: the library behind it must go on.
func (b *bodyWriter) Write(p []byte) (int, error) {
	if out := b.onWrite(p); len(out) > 0 {
		if _, err := b.ResponseWriter.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
