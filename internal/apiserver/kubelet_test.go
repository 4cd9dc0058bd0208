package apiserver

import (
	"fmt"
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
