package apiserver

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/internal/apiserver/etcd"
)

// TestStoredBytesAreUpstreams says that upstream's tools read the store, and
// that a store written by any Kubernetes API server can be served.
func TestStoredBytesAreUpstreams(t *testing.T) {
	ns := namespace(t, nil)
	mustCreatePod(t, ns, makePod("p"))
	if _, err := shared.client.BatchV1().Jobs(ns).Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for key, kind := range map[string]string{
		"/registry/jobs/" + ns + "/j":                  "batch/v1\x12\x03Job",
		"/registry/pods/" + ns + "/p":                  "v1\x12\x03Pod",
		"/registry/serviceaccounts/" + ns + "/default": "v1\x12\x0eServiceAccount",
		"/registry/clusterroles/cluster-admin":         "rbac.authorization.k8s.io/v1\x12\x0bClusterRole",
		"/registry/namespaces/" + ns:                   "v1\x12\tNamespace",
	} {
		resp, err := shared.server.Etcd().Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Kvs) != 1 {
			t.Errorf("nothing at %s", key)
			continue
		}
		value := resp.Kvs[0].Value
		if !bytes.HasPrefix(value, []byte("k8s\x00")) || !bytes.Contains(value[:64], []byte(kind)) {
			t.Errorf("%s holds %q...", key, value[:64])
		}
	}
}

func TestEventsExpire(t *testing.T) {
	ns := namespace(t, nil)
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, InvolvedObject: corev1.ObjectReference{Namespace: ns}}
	if _, err := shared.client.CoreV1().Events(ns).Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	resp, err := shared.server.Etcd().Get(t.Context(), "/registry/events/"+ns+"/e")
	if err != nil || len(resp.Kvs) != 1 || resp.Kvs[0].Lease == 0 {
		t.Errorf("the event has no lease: %v, %v", resp, err)
	}
	// The newer group serves the same object.
	if _, err := shared.client.EventsV1().Events(ns).Get(t.Context(), "e", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestFullStore(t *testing.T) {
	dir := t.TempDir()
	const quota = 4 << 20
	s, stop := startServer(t, Config{DataDir: dir, EtcdQuotaBytes: quota})
	client := adminClient(t, s)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("big-%d", i)},
			Data:       map[string]string{"x": strings.Repeat("x", 500_000)},
		}
		_, err = client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{})
	}
	if err == nil || !strings.Contains(err.Error(), "the store is full: the database in") || !strings.Contains(err.Error(), "quota of 4 MiB") {
		t.Fatalf("writing on and on: got %v", err)
	}
	for path, want := range map[string]int{"/readyz/etcd-space": http.StatusInternalServerError, "/livez": http.StatusOK} {
		status := 0
		if client.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).StatusCode(&status); status != want {
			t.Errorf("%s answers %d with a full store, want %d", path, status, want)
		}
	}
	// Not even a start writes to it that has something to write.
	stop()
	s, stop = startServer(t, Config{DataDir: dir, EtcdQuotaBytes: quota, ServiceAddress: at("198.18.0.1")})
	client = adminClient(t, s)
	if _, err := client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Service in a full store: %v", err)
	}
	// Reading and deleting go on.
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, cm := range list.Items {
		if err := client.CoreV1().ConfigMaps("default").Delete(t.Context(), cm.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	// A restart makes room of what was deleted.
	s, _ = startServer(t, Config{DataDir: dir, EtcdQuotaBytes: quota, ServiceAddress: at("198.18.0.1")})
	kubernetesServiceOf(t, s.Client())
	if _, err := adminClient(t, s).BatchV1().Jobs("default").Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestExternalEtcd(t *testing.T) {
	dir := shortDir(t)
	member, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), SocketDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	s, stop := startServer(t, Config{DataDir: t.TempDir(), Etcd: etcd.External{Endpoints: []string{"unix://" + member.Socket()}}})
	if _, err := adminClient(t, s).BatchV1().Jobs("default").Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()
	resp, err := member.Client().Get(t.Context(), "/registry/jobs/default/j")
	if err != nil || len(resp.Kvs) != 1 {
		t.Errorf("the cluster doesn't hold the Job: %v, %v", resp, err)
	}
}
