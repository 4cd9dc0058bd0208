package clusterengine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"k8s.io/component-base/metrics/legacyregistry"

	_ "k8s.io/component-base/metrics/prometheus/clientgo" // counts requests and elections
)

// noAddress is the --metrics-bind-address that means none.
const noAddress = "0"

// requestTimeout bounds what a client of the probes may take to say its request
// and read the answer.
const requestTimeout = 10 * time.Second

// profileTimeout does the same where a profile may be asked for, which is taken
// for as long as its request says.
const profileTimeout = 10 * time.Minute

// A check returns nil where all is well.
type check func() error

// listen opens the port of metrics and probes; nil where there is none.
func listen(ctx context.Context, address string) (net.Listener, error) {
	if address == noAddress {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-bind-address %s: %w: name another address, or 0 for none", address, err)
	}
	return l, nil
}

// probes serves metrics, and whether the process lives and is ready.
func probes(healthy, ready check) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", legacyregistry.Handler())
	mux.Handle("GET /healthz", healthy)
	mux.Handle("GET /readyz", ready)
	return mux
}

// addProfiles serves the process's profiles, too.
func addProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// ServeHTTP implements http.Handler.
func (c check) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if err := c(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// serve serves on the listener until ctx ends. No answer takes longer than longest.
func serve(ctx context.Context, l net.Listener, h http.Handler, longest time.Duration) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: requestTimeout, WriteTimeout: longest}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and probes: %w", err)
	}
	return nil
}
