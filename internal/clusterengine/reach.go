package clusterengine

import (
	"context"
	"errors"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// pace is how often an API server that is away is tried by each watch: at first
// ten times a second, in the end once, and never less often. client-go's caches
// would come to wait for a minute between tries, and go on so after the next
// outage; they are made for thousands of nodes, where here are a few replicas
// with three watches each.
var pace = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 5, Cap: time.Second}

// persistent has a client's reads wait for an API server that is away, rather
// than fail. It is for caches, which have nothing better to do.
func persistent(cfg *rest.Config) {
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return persistence{next} })
}

// persistence is a transport whose reads end with an answer or their context.
type persistence struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p persistence) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.Body != nil {
		return p.next.RoundTrip(r)
	}
	logger, began, tries := klog.FromContext(r.Context()), time.Now(), pace
	resp, err := p.next.RoundTrip(r)
	why := away(resp, err)
	if why == nil || r.Context().Err() != nil {
		return resp, err
	}
	logger.Error(why, "The API server can't be reached; the watch waits for it", "path", r.URL.Path)
	for why != nil {
		if resp != nil {
			resp.Body.Close()
		}
		if err := pause(r.Context(), tries.Step()); err != nil {
			return nil, err
		}
		resp, err = p.next.RoundTrip(r)
		why = away(resp, err)
	}
	logger.V(2).Info("The API server is reached again", "path", r.URL.Path, "after", time.Since(began))
	return resp, err
}

// away says why no API server has answered; nil if one has. A gateway that has
// none behind it answers in its place. Whoever says when to come again has
// answered: client-go minds that.
func away(resp *http.Response, err error) error {
	switch {
	case err != nil:
		return err
	case resp.Header.Get("Retry-After") != "":
		return nil
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable:
		return errors.New(resp.Status)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (p persistence) WrappedRoundTripper() http.RoundTripper { return p.next }
