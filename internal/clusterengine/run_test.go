package clusterengine

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Where nobody answers, whoever started the controller is told, and it can be
// stopped.
func TestNoAPIServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // now nobody listens there
	o := DefaultOptions()
	o.MetricsBindAddress = noAddress
	c := &Config{options: o, rest: &rest.Config{Host: "http://" + address}, identity: "a"}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, w, nil) }()
	line := make([]byte, 1000)
	n, err := r.Read(line)
	if err != nil || !strings.Contains(string(line[:n]), address) || !strings.Contains(string(line[:n]), "refused") {
		t.Errorf("it says %q: %v", line[:n], err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// A process that should have ended for want of the lease, and hangs, isn't
// healthy; one that waits for its turn is, and ready once its caches are filled.
func TestProbes(t *testing.T) {
	f, clock := newFence()
	r := &replica{Config: &Config{options: DefaultOptions()}, synced: make(chan struct{}), lease: &lease{fence: f}}
	handler := probes(r.healthy, r.ready)
	want := func(path string, code int) {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != code {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, code)
		}
	}
	want("/readyz", http.StatusServiceUnavailable)
	want("/healthz", http.StatusOK)
	close(r.synced)
	want("/readyz", http.StatusOK)
	want("/metrics", http.StatusOK)
	f.renewed(clock.Time)
	clock.Time = clock.Add(f.holds + r.options.Lease.Duration)
	want("/healthz", http.StatusOK)
	clock.Time = clock.Add(time.Second)
	want("/healthz", http.StatusServiceUnavailable)
}

// Profiles are served to whoever asks for --profiling, and to nobody else.
func TestProfiling(t *testing.T) {
	for _, profiling := range []bool{true, false} {
		options := DefaultOptions()
		options.Profiling = profiling
		r := &replica{Config: &Config{options: options}}
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/heap", nil))
		if served := w.Code == http.StatusOK && w.Body.Len() > 0; served != profiling {
			t.Errorf("with --profiling=%t: %d", profiling, w.Code)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := DefaultOptions()
	o.MetricsBindAddress = l.Addr().String()
	c := &Config{options: o, rest: &rest.Config{Host: "http://127.0.0.1:1"}}
	if err := c.run(t.Context(), io.Discard, nil); err == nil || !strings.Contains(err.Error(), "--metrics-bind-address "+o.MetricsBindAddress) {
		t.Errorf("with a port that is taken: %v", err)
	}
}

// Who lacks rights is told which, without having to read the log.
func TestRefusals(t *testing.T) {
	admin, err := clientcmd.BuildConfigFromFlags("", cluster.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.CopyConfig(admin)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	o := DefaultOptions()
	o.Lease.Namespace, o.Lease.Name = "kube-system", "l"
	for name, tc := range map[string]struct {
		config *rest.Config
		elects bool
		want   []string
	}{
		"all of them":         {cfg, true, []string{"list resource \"jobs\"", "list resource \"pods\"", "get resource \"leases\""}},
		"without an election": {cfg, false, []string{"list resource \"jobs\"", "list resource \"pods\""}},
		"none":                {admin, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := &replica{Config: &Config{options: o, rest: tc.config}}
			client, err := r.client(func(*rest.Config) {})
			if err != nil {
				t.Fatal(err)
			}
			if tc.elects {
				r.lease = newLease(o.Lease, "a", client, client, nil)
			}
			got := r.refusals(t.Context(), client)
			if len(got) != len(tc.want) {
				t.Fatalf("refused are %v, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				if !strings.Contains(got[i].Error(), want) {
					t.Errorf("it says %v, want %q", got[i], want)
				}
			}
		})
	}
}
