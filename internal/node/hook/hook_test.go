package hook

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
)

func exec(_ context.Context, id string, command []string) ([]byte, error) {
	if command[0] == "fails" {
		return []byte("out"), errors.New("exit status 1")
	}
	return nil, nil
}

func call(h v1.LifecycleHandler) Call {
	return Call{
		Pod:       &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}},
		Container: &v1.Container{Name: "c"},
		ID:        "id",
		Host:      "127.0.0.1",
		Handler:   &h,
	}
}

func get(t *testing.T, server *httptest.Server, scheme v1.URIScheme) v1.LifecycleHandler {
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: "/hook", Port: intstr.Parse(u.Port()), Scheme: scheme}}
}

func TestRun(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.UserAgent(), "kube-lifecycle/") {
			t.Errorf("asked by %q", r.UserAgent())
		}
		w.WriteHeader(http.StatusInternalServerError) // what it answers doesn't matter
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	gone := httptest.NewServer(answer)
	gone.Close()
	nowhere := call(get(t, plain, v1.URISchemeHTTP))
	nowhere.Host = ""
	for name, c := range map[string]struct {
		call     Call
		err      string // how it begins; "" for none
		fellBack bool
	}{
		"exec":              {call(v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"works"}}}), "", false},
		"exec fails":        {call(v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"fails", "x"}}}), `Exec lifecycle hook ([fails x]) for Container "c" in Pod "p_ns(u)" failed - error: exit status 1, message: "out"`, false},
		"http":              {call(get(t, plain, v1.URISchemeHTTP)), "", false},
		"https":             {call(get(t, secure, v1.URISchemeHTTPS)), "", false},
		"https, but isn't":  {call(get(t, plain, v1.URISchemeHTTPS)), "", true},
		"http, nobody":      {call(get(t, gone, v1.URISchemeHTTP)), `HTTP lifecycle hook (/hook) for Container "c" in Pod "p_ns(u)" failed - error: Get `, false},
		"http, no address":  {nowhere, `HTTP lifecycle hook (/hook) for Container "c" in Pod "p_ns(u)" failed - error: the pod has no address`, false},
		"sleep for no time": {call(v1.LifecycleHandler{Sleep: &v1.SleepAction{}}), "", false},
		"nothing":           {call(v1.LifecycleHandler{TCPSocket: &v1.TCPSocketAction{}}), "cannot run the lifecycle hook of container c: only exec, httpGet and sleep can be run", false},
	} {
		fellBack, err := New(exec, clock.RealClock{}).Run(t.Context(), c.call)
		if (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if (fellBack != "") != c.fellBack {
			t.Errorf("%s: fell back: %q", name, fellBack)
		}
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, begin := New(exec, clock.RealClock{}), time.Now()
		sleep := call(v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 7}})
		if _, err := r.Run(t.Context(), sleep); err != nil || time.Since(begin) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		want := `Sleep lifecycle hook (7) for Container "c" in Pod "p_ns(u)" failed - error: container terminated before sleep hook finished`
		if _, err := r.Run(ctx, sleep); err == nil || err.Error() != want {
			t.Error(err)
		}
	})
}
