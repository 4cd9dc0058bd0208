package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/internal/apiserver/etcd"
)

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first, stop := startServer(t, Config{DataDir: dir})
	client := adminClient(t, first)
	job, err := client.BatchV1().Jobs("default").Create(t.Context(), makeJob("kept"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service, err := client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ca := string(first.CA())
	stop()

	second, _ := startServer(t, Config{DataDir: dir})
	client = adminClient(t, second)
	again, err := client.BatchV1().Jobs("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil || again.UID != job.UID || again.ResourceVersion != job.ResourceVersion {
		t.Errorf("after the restart: %v, %v; before: %v", again, err, job)
	}
	if string(second.CA()) != ca {
		t.Error("the certificate authority changed")
	}
	_, err = client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "thief"},
		Spec:       corev1.ServiceSpec{ClusterIP: service.Spec.ClusterIP, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err == nil {
		t.Error("a Service got an address that another holds since before the restart")
	}
}

func TestReadyMeansReadyzSaysOK(t *testing.T) {
	body, err := shared.client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	for _, check := range []string{"[+]etcd ok", "[+]bootstrap ok", "readyz check passed"} {
		if !strings.Contains(string(body), check) {
			t.Errorf("no %q in\n%s", check, body)
		}
	}
}

// TestStopsAtOnce has what delays a stop: open watches, over the network and
// within the process, and a client that keeps its connection.
func TestStopsAtOnce(t *testing.T) {
	s, stop := startServer(t, Config{DataDir: t.TempDir()})
	client := adminClient(t, s)
	for range 10 {
		w, err := client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
	}
	w, err := s.Client().CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	start := time.Now()
	stop()
	if took := time.Since(start); took > time.Second {
		t.Errorf("the stop took %v", took)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the stop: got %v, want connection refused", err)
	}
}

func TestPortTaken(t *testing.T) {
	taken := shared.server.Addr().String()
	_, err := New(t.Context(), Config{DataDir: t.TempDir(), RuntimeDir: shortDir(t), Listen: taken})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{taken, fmt.Sprintf("(pid %d)", os.Getpid()), "--listen"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %q", part, err)
		}
	}
}

func TestAFailedStartLetsGoOfEverything(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, run := t.TempDir(), shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, "pki"), nil, 0o600); err != nil { // a file where a directory must be
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{DataDir: dir, RuntimeDir: run, Listener: l}); err == nil {
		t.Fatal("New succeeded")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "pki")); err != nil {
		t.Fatal(err)
	}
	startServer(t, Config{DataDir: dir, RuntimeDir: run})
}

func TestValidateTellsEveryMistake(t *testing.T) {
	err := (&Config{
		Listen: "nowhere", ServiceRange: "10.0.0.0", EtcdQuotaBytes: -1, Etcd: etcd.External{CertFile: "x"},
		NodeDialer: func(context.Context) (net.Conn, error) { return nil, io.EOF },
	}).Validate()
	for _, field := range []string{"DataDir", "RuntimeDir", "Listen", "ServiceRange", "NodeName", "Etcd", "EtcdQuotaBytes"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("nothing about %s in %v", field, err)
		}
	}
}

func TestAddedListenersAreServed(t *testing.T) {
	extra, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	late, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s, stop := startServer(t, Config{DataDir: t.TempDir()})
	s.AddListener(extra)
	config := s.LoopbackConfig()
	for _, addr := range []net.Addr{s.Addr(), extra.Addr()} {
		config.Host = "https://" + addr.String()
		if _, err := clientFor(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	stop()
	s.AddListener(late)
	for _, l := range []net.Listener{extra, late} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after the end: %v", l.Addr(), err)
		}
	}
}

func TestDirectConfigNeedsNoListener(t *testing.T) {
	config := shared.server.DirectConfig()
	config.Host = "https://nowhere:1"
	client := clientFor(t, config)
	list, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) < len(systemNamespaces()) {
		t.Errorf("%d namespaces, %v", len(list.Items), err)
	}
	// It isn't a way past authentication.
	config.BearerToken = "guess"
	if _, err := clientFor(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("with another token: got %v, want unauthorized", err)
	}
}

func TestSystemNamespacesComeBack(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir()})
	namespaces := s.Client().CoreV1().Namespaces()
	old, err := namespaces.Get(t.Context(), corev1.NamespaceNodeLease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := namespaces.Delete(t.Context(), old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// On a full errand the namespace controller empties and finalizes it.
	if old, err = namespaces.Get(t.Context(), old.Name, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	old.Spec.Finalizers = nil
	if _, err := namespaces.Finalize(t.Context(), old, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		ns, err := namespaces.Get(t.Context(), old.Name, metav1.GetOptions{})
		if err == nil && ns.UID == old.UID {
			return errors.New("the old namespace is still there")
		}
		return err
	})
}

func TestKubeconfigIsPrivate(t *testing.T) {
	info, err := os.Stat(shared.server.Kubeconfig())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dataPath(shared.server, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

// errand's own commands find the kubeconfig in the data directory, wherever
// else the user wants it.
func TestKubeconfigIsInTheDataDirectoryToo(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "made", "config")
	s, _ := startServer(t, Config{DataDir: t.TempDir(), Kubeconfig: elsewhere})
	want, err := os.ReadFile(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dataPath(s, "kubeconfig")); err != nil || string(got) != string(want) {
		t.Errorf("the data directory's kubeconfig: %v, other than the one asked for", err)
	}
}
