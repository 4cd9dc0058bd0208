package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/kubernetes/pkg/probe"
	"k8s.io/utils/ptr"
)

// servers are what network probes ask, on loopback.
type servers struct{ http, grpc, silent, closed int }

func serve(t *testing.T) servers {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case "/sick":
			http.Error(w, "a secret", http.StatusInternalServerError)
		case "/told":
			if r.Header.Get("X-Token") != "t" || r.Host != "me" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
				http.Error(w, "", http.StatusTeapot)
			}
		}
	}))
	t.Cleanup(web.Close)
	checks := health.NewServer()
	checks.SetServingStatus("sick", healthv1.HealthCheckResponse_NOT_SERVING)
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, checks)
	l := listen(t)
	go g.Serve(l) //nolint:errcheck // ends with the test
	t.Cleanup(g.Stop)
	closed := listen(t)
	closed.Close()
	return servers{http: portOf(web.Listener), grpc: portOf(l), silent: portOf(listen(t)), closed: portOf(closed)}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// exec plays the container's commands.
func exec(_ context.Context, id string, command []string, timeout time.Duration) ([]byte, error) {
	switch command[0] {
	case "fails":
		return []byte("no good"), fail
	case "hangs":
		return nil, fmt.Errorf("%w: %q timed out after %s", remote.ErrCommandTimedOut, command[0], timeout)
	case "missing":
		return nil, fmt.Errorf("no such file in %s", id)
	}
	return []byte(strings.Join(command, " ")), nil
}

func TestAsk(t *testing.T) {
	s := serve(t)
	http := func(path string, port intstr.IntOrString, headers ...v1.HTTPHeader) v1.ProbeHandler {
		return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: port, HTTPHeaders: headers}}
	}
	tcp := func(port int) v1.ProbeHandler {
		return v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(port)}}
	}
	grpc := func(port int, service *string) v1.ProbeHandler {
		return v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(port), Service: service}}
	}
	command := func(words ...string) v1.ProbeHandler { return v1.ProbeHandler{Exec: &v1.ExecAction{Command: words}} }
	web := intstr.FromInt(s.http)
	for name, c := range map[string]struct {
		handler v1.ProbeHandler
		want    probe.Result
		says    string // part of the output or error
		errs    bool
	}{
		"exec":                  {command("echo", "$(NAME)", "$(OTHER)"), probe.Success, "echo value $(OTHER)", false},
		"exec fails":            {command("fails"), probe.Failure, "no good", false},
		"exec hangs":            {command("hangs"), probe.Failure, `command timed out: "hangs" timed out after 1s`, false},
		"exec of nothing":       {command("missing"), probe.Unknown, "no such file in id", true},
		"http":                  {http("/", web), probe.Success, "", false},
		"http, by name of port": {http("/", intstr.FromString("web")), probe.Success, "", false},
		"http, unknown port":    {http("/", intstr.FromString("nosuch")), probe.Unknown, "nosuch", true},
		"http, headers":         {http("/told", web, v1.HTTPHeader{Name: "X-Token", Value: "t"}, v1.HTTPHeader{Name: "Host", Value: "me"}), probe.Success, "", false},
		"http fails":            {http("/sick", web), probe.Failure, "HTTP probe failed with statuscode: 500", false},
		"http leads elsewhere":  {http("/elsewhere", web), probe.Warning, "Probe terminated redirects", false},
		"http, nobody there":    {http("/", intstr.FromInt(s.closed)), probe.Failure, "connection refused", false},
		"http, no answer":       {http("/", intstr.FromInt(s.silent)), probe.Failure, "context deadline exceeded", false},
		"tcp":                   {tcp(s.http), probe.Success, "", false},
		"tcp, nobody there":     {tcp(s.closed), probe.Failure, "connection refused", false},
		"grpc":                  {grpc(s.grpc, nil), probe.Success, "service healthy", false},
		"grpc fails":            {grpc(s.grpc, ptr.To("sick")), probe.Failure, "service unhealthy (responded with \"NOT_SERVING\")", false},
		"grpc, no answer":       {grpc(s.silent, nil), probe.Failure, "timeout", false},
		"no handler":            {v1.ProbeHandler{}, probe.Unknown, "names no handler", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := Target{ID: "id", Host: "127.0.0.1", Container: &v1.Container{
				Name:  "c",
				Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(s.http)}},
				Env:   []v1.EnvVar{{Name: "NAME", Value: "value"}},
			}}
			result, output, err := newAsker(exec).ask(t.Context(), target, &v1.Probe{ProbeHandler: c.handler, TimeoutSeconds: 1})
			if err != nil {
				output = err.Error()
			}
			if result != c.want || !strings.Contains(output, c.says) || (err != nil) != c.errs || strings.Contains(output, "a secret") {
				t.Errorf("%s, %q, %v", result, output, err)
			}
		})
	}
}

// Probes by network end with their container, too, not only with their timeout.
func TestAskIsCutShort(t *testing.T) {
	silent := portOf(listen(t))
	for name, handler := range map[string]v1.ProbeHandler{
		"http": {HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(silent)}},
		"grpc": {GRPC: &v1.GRPCAction{Port: int32(silent)}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				target := Target{Host: "127.0.0.1", Container: &v1.Container{Name: "c"}}
				_, _, _ = newAsker(exec).ask(ctx, target, &v1.Probe{ProbeHandler: handler, TimeoutSeconds: 3600})
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Error("it goes on on port " + strconv.Itoa(silent))
			}
		})
	}
}

// A pod without an address isn't taken for this machine.
func TestAskNobody(t *testing.T) {
	s := serve(t)
	for _, handler := range []v1.ProbeHandler{
		{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(s.http)}},
		{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(s.http)}},
		{GRPC: &v1.GRPCAction{Port: int32(s.grpc)}},
	} {
		result, _, err := newAsker(exec).ask(t.Context(), Target{Container: &v1.Container{Name: "c"}}, &v1.Probe{ProbeHandler: handler, TimeoutSeconds: 1})
		if result != probe.Unknown || err == nil || err.Error() != "the pod has no address" {
			t.Errorf("%+v: %s, %v", handler, result, err)
		}
	}
}

// What a probe costs without what it asks, and by HTTP.
func BenchmarkAsk(b *testing.B) {
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer web.Close()
	target := Target{ID: "id", Host: "127.0.0.1", Container: &v1.Container{Name: "c"}}
	for name, handler := range map[string]v1.ProbeHandler{
		"exec": {Exec: &v1.ExecAction{Command: []string{"true"}}},
		"http": {HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(portOf(web.Listener))}},
		"tcp":  {TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(portOf(web.Listener))}},
	} {
		b.Run(name, func(b *testing.B) {
			a, spec := newAsker(exec), &v1.Probe{ProbeHandler: handler, TimeoutSeconds: 1}
			for b.Loop() {
				if result, output, err := a.ask(b.Context(), target, spec); result != probe.Success {
					b.Fatal(result, output, err)
				}
			}
		})
	}
}
