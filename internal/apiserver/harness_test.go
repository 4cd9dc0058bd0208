package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// shared is the server that tests use unless they need one of their own. Each
// test works in a namespace of its own.
var shared struct {
	server *Server
	config *restclient.Config // as the administrator, by HTTPS
	client kubernetes.Interface
	node   *fakeNode
}

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	code, err := runWithServer(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runWithServer(run func() int) (int, error) {
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	shared.node = newFakeNode()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	shared.server, err = New(ctx, Config{
		DataDir: dir, RuntimeDir: dir, Listen: "127.0.0.1:0", NodeName: "here", NodeDialer: shared.node.dial,
	})
	if err != nil {
		return 1, err
	}
	done := make(chan error, 1)
	go func() { done <- shared.server.Run(ctx) }()
	select {
	case <-shared.server.Ready():
	case err := <-done:
		return 1, err
	}
	if shared.config, err = clientcmd.BuildConfigFromFlags("", shared.server.Kubeconfig()); err != nil {
		return 1, err
	}
	shared.config.QPS = -1
	if shared.client, err = kubernetes.NewForConfig(shared.config); err != nil {
		return 1, err
	}
	code := run()
	cancel()
	return code, <-done
}

// startServer runs a server of the test's own and returns it once it is ready.
// The function returned stops it and waits; the test's end does so, too.
func startServer(t *testing.T, cfg Config) (*Server, func()) {
	t.Helper()
	if cfg.RuntimeDir == "" {
		cfg.RuntimeDir = shortDir(t)
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := New(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-done:
		stopped = true
		t.Fatalf("Run ended before the server was ready: %v", err)
	}
	return s, stop
}

// shortDir is for sockets: t.TempDir's paths are too long for some.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// adminClient speaks HTTPS with the certificate in the server's kubeconfig.
func adminClient(t *testing.T, s *Server) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return clientFor(t, config)
}

func clientFor(t *testing.T, config *restclient.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// namespace makes a namespace with the service account that pods need; on a
// full errand a controller makes it.
func namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	ns, err := shared.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := shared.client.CoreV1().ServiceAccounts(ns.Name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// eventually repeats what informers may not have seen yet. It gives up after
// ten seconds with the last error.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fakeNode answers as the node agent's private server does.
type fakeNode struct {
	listener net.Listener
	handler  http.Handler
}

func newFakeNode() *fakeNode {
	n := &fakeNode{handler: http.NotFoundHandler()}
	n.listener = newPipeListener()
	go func() {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.handler.ServeHTTP(w, r) })}
		_ = server.Serve(n.listener) // ends with the process
	}()
	return n
}

func (n *fakeNode) dial(ctx context.Context) (net.Conn, error) {
	return n.listener.(*pipeListener).dial(ctx)
}

// pipeListener accepts what dial connects, within the process.
type pipeListener struct{ conns chan net.Conn }

func newPipeListener() *pipeListener { return &pipeListener{conns: make(chan net.Conn)} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) { return <-l.conns, nil }
func (l *pipeListener) Close() error              { return nil }
func (l *pipeListener) Addr() net.Addr            { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func dataPath(s *Server, elem ...string) string {
	return filepath.Join(append([]string{s.cfg.DataDir}, elem...)...)
}
