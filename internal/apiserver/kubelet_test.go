package apiserver

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestNodeAgentIsReachedByItsSocket(t *testing.T) {
	ns := namespace(t, nil)
	shared.node.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s?%s\n", r.Method, r.URL.Path, r.URL.RawQuery)
	})
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	if _, err := shared.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := makePod("p")
	pod.Spec.NodeName = "here"
	mustCreatePod(t, ns, pod)

	logs, err := shared.client.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{TailLines: ptr.To(int64(5))}).DoRaw(t.Context())
	if want := "GET /containerLogs/" + ns + "/p/main?tailLines=5\n"; err != nil || string(logs) != want {
		t.Errorf("logs: %q, %v; want %q", logs, err, want)
	}
	proxied, err := shared.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/here/proxy/healthz").DoRaw(t.Context())
	if err != nil || !strings.HasPrefix(string(proxied), "GET /healthz") {
		t.Errorf("proxy: %q, %v", proxied, err)
	}
}

func TestLogsOfAPodOnNoNode(t *testing.T) {
	ns := namespace(t, nil)
	mustCreatePod(t, ns, makePod("p"))
	logs, err := shared.client.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || len(logs) != 0 { // as upstream: an unscheduled pod has no output yet
		t.Errorf("got %q, %v", logs, err)
	}
}

// endsWithItsBytes is a body that ends with its last bytes, as Go's client does
// with an answer that has come whole.
type endsWithItsBytes struct{ *strings.Reader }

func (endsWithItsBytes) Close() error { return nil }

func (e endsWithItsBytes) Read(p []byte) (int, error) {
	n, _ := e.Reader.Read(p)
	if e.Len() == 0 {
		return n, io.EOF
	}
	return n, nil
}

type answers func(*http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

func TestAnAnswersEndComesAfterItsBytes(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusSwitchingProtocols} {
		body := endsWithItsBytes{strings.NewReader("log")}
		transport := lateEnds{answers(func(*http.Request) *http.Response { return &http.Response{StatusCode: status, Body: body} })}
		resp, err := transport.RoundTrip(&http.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusSwitchingProtocols {
			if resp.Body != body {
				t.Error("an upgraded connection was wrapped, and can't be written to")
			}
			continue
		}
		p := make([]byte, 8)
		if n, err := resp.Body.Read(p); n != 3 || err != nil {
			t.Errorf("first read: %d, %v; want 3, nil", n, err)
		}
		if n, err := resp.Body.Read(p); n != 0 || err != io.EOF {
			t.Errorf("second read: %d, %v; want 0, EOF", n, err)
		}
	}
}
