package direct

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func do(t *testing.T, ctx context.Context, body io.Reader, handler http.HandlerFunc) (*http.Response, error) {
	t.Helper()
	transport := NewTransport(func(context.Context) (http.Handler, error) { return handler, nil })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://server/path?a=b", body)
	if err != nil {
		t.Fatal(err)
	}
	return transport.RoundTrip(req)
}

func TestRequestAndResponse(t *testing.T) {
	resp, err := do(t, t.Context(), strings.NewReader("question"), func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.RequestURI+" "+r.Host)
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "too late")
		fmt.Fprintf(w, "answer to %s", asked)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || string(answer) != "answer to question" || resp.ContentLength != int64(len(answer)) {
		t.Errorf("%q, %v, length %d", answer, err, resp.ContentLength)
	}
	if resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Seen") != "POST /path?a=b server" || resp.Header.Get("X-Late") != "" {
		t.Errorf("status %d, header %v", resp.StatusCode, resp.Header)
	}
}

func TestStream(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	resp, err := do(t, ctx, nil, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		fmt.Fprintln(w, "kept")
		w.(http.Flusher).Flush()
		for i := 0; ; i++ {
			if _, err := fmt.Fprintln(w, i); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(resp.Body)
	for _, want := range []string{"kept", "0", "1", "2"} {
		if !scanner.Scan() || scanner.Text() != want {
			t.Errorf("got %q, want %q", scanner.Text(), want)
		}
	}
	cancel()
	<-ended // a writer blocked on a client that is gone must return
	for scanner.Scan() {
	}
	if !errors.Is(scanner.Err(), context.Canceled) {
		t.Errorf("the body ended with %v", scanner.Err())
	}
	resp.Body.Close()
}

func TestClosingTheBodyEndsTheHandler(t *testing.T) {
	ended := make(chan struct{})
	resp, err := do(t, t.Context(), nil, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		<-w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-ended
}

func TestContextEndsBeforeTheAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	_, err := do(t, ctx, nil, func(_ http.ResponseWriter, r *http.Request) {
		defer close(ended)
		cancel()
		<-r.Context().Done()
	})
	<-ended
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A request made while another is answered has nothing of that one's but its end.
func TestRequestsAreApart(t *testing.T) {
	type key struct{}
	end := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), key{}, "of the outer request"), end)
	defer cancel()
	resp, err := do(t, ctx, nil, func(w http.ResponseWriter, r *http.Request) {
		if v := r.Context().Value(key{}); v != nil {
			t.Errorf("it has the value %v", v)
		}
		if got, ok := r.Context().Deadline(); !ok || !got.Equal(end) {
			t.Errorf("it ends at %v, %v", got, ok)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestPanics(t *testing.T) {
	for want, reason := range map[string]any{
		"unexpected EOF":            http.ErrAbortHandler,
		"the handler panicked: boo": "boo",
	} {
		for _, flush := range []bool{false, true} {
			resp, err := do(t, t.Context(), nil, func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, "begun")
				if flush {
					w.(http.Flusher).Flush()
				}
				panic(reason)
			})
			if err != nil {
				t.Fatal(err)
			}
			read, err := io.ReadAll(resp.Body)
			if string(read) != "begun" || err == nil || err.Error() != want {
				t.Errorf("flush %v: read %q, %v; want %s", flush, read, err, want)
			}
			resp.Body.Close()
		}
	}
}

func TestNoHandler(t *testing.T) {
	transport := NewTransport(func(context.Context) (http.Handler, error) { return nil, io.EOF })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.RoundTrip(req); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}
