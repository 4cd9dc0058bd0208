package clusterengine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// flaky is an API server without objects that comes and goes.
type flaky struct {
	mu   sync.Mutex
	away bool
	// how answers while it is away; nil: the connection is refused.
	how func(*http.Request) (*http.Response, error)
	// tries is how often it was asked meanwhile.
	tries    int
	watching chan struct{} // gets a value at each watch that begins
	watches  []*io.PipeWriter
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.away && f.how != nil:
		f.tries++
		return f.how(r)
	case f.away:
		f.tries++
		return nil, errors.New("connect: connection refused")
	case r.URL.Query().Get("watch") == "":
		return answer(http.StatusOK, io.NopCloser(strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`))), nil
	case r.URL.Query().Get("sendInitialEvents") != "":
		return answer(http.StatusUnprocessableEntity, http.NoBody), nil // an older one: it has to be listed
	}
	body, w := io.Pipe()
	f.watches = append(f.watches, w)
	context.AfterFunc(r.Context(), func() { w.CloseWithError(context.Canceled) })
	f.watching <- struct{}{}
	return answer(http.StatusOK, body), nil
}

func answer(code int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

// goes has the server go, with all connections, and comes has it come back.
func (f *flaky) goes() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.tries = true, 0
	for _, w := range f.watches {
		w.Close()
	}
	f.watches = nil
}

func (f *flaky) comes() (tries int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = false
	return f.tries
}

// longest is how long an API server can be back without being asked.
const longest = 1500 * time.Millisecond

// After any outage the caches are fed again at once, after the second as after
// the first, though they don't ask much more than once a second meanwhile.
func TestCachesComeBack(t *testing.T) {
	for name, how := range map[string]func(*http.Request) (*http.Response, error){
		"refused": nil,
		"gateway": func(*http.Request) (*http.Response, error) { return answer(http.StatusBadGateway, http.NoBody), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				api := &flaky{how: how, watching: make(chan struct{}, 10), away: true}
				cfg := &rest.Config{Host: "http://api", Transport: api, QPS: -1}
				persistent(cfg)
				client, err := kubernetes.NewForConfig(cfg)
				if err != nil {
					t.Fatal(err)
				}
				factory := informers.NewSharedInformerFactory(client, 0)
				newPods, err := podInformer(cfg, "")
				if err != nil {
					t.Fatal(err)
				}
				factory.InformerFor(&corev1.Pod{}, newPods)
				factory.StartWithContext(ctx)
				for _, outage := range []time.Duration{time.Minute, time.Second, 10 * time.Minute, time.Minute, time.Hour} {
					time.Sleep(outage)
					synctest.Wait()
					if tries, most := api.comes(), int(outage/time.Second)+6; tries < 1 || tries > most {
						t.Errorf("in an outage of %s it was asked %d times, want at most %d", outage, tries, most)
					}
					back := time.Now()
					<-api.watching
					if took := time.Since(back); took > longest {
						t.Errorf("after an outage of %s the cache is fed again after %s", outage, took)
					}
					time.Sleep(time.Second)
					api.goes()
				}
				cancel()
				factory.Shutdown()
			})
		})
	}
}

// What isn't the API server's absence is passed on, for client-go to judge; and
// no write is ever sent twice.
func TestWhatIsPassedOn(t *testing.T) {
	refused := errors.New("refused")
	later := answer(http.StatusServiceUnavailable, http.NoBody)
	later.Header.Set("Retry-After", "1")
	for name, tc := range map[string]struct {
		method string
		resp   *http.Response
		err    error
	}{
		"an answer":              {http.MethodGet, answer(http.StatusOK, http.NoBody), nil},
		"an error of the server": {http.MethodGet, answer(http.StatusInternalServerError, http.NoBody), nil},
		"no rights":              {http.MethodGet, answer(http.StatusForbidden, http.NoBody), nil},
		"too large a version":    {http.MethodGet, answer(http.StatusGatewayTimeout, http.NoBody), nil},
		"come later":             {http.MethodGet, later, nil},
		"a write that's refused": {http.MethodPatch, nil, refused},
		"a write to nobody":      {http.MethodPost, answer(http.StatusBadGateway, http.NoBody), nil},
	} {
		t.Run(name, func(t *testing.T) {
			sent := 0
			transport := persistence{tripper(func(*http.Request) (*http.Response, error) { sent++; return tc.resp, tc.err })}
			r, err := http.NewRequestWithContext(t.Context(), tc.method, "http://api/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
			if resp != tc.resp || !errors.Is(err, tc.err) || sent != 1 {
				t.Errorf("sent %d times: %v, %v", sent, resp, err)
			}
		})
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
