package clienttest_test

import (
	"context"
	"flag"
	"io"
	"os"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/apiserver/inprocess/clienttest"
)

// TestErrand holds the API server as errand runs it to the contract: its own client, and plain HTTPS.
func TestErrand(t *testing.T) {
	if !testing.Verbose() {
		quiet := flag.NewFlagSet("", flag.ContinueOnError)
		klog.InitFlags(quiet)
		_ = quiet.Parse([]string{"-logtostderr=false", "-stderrthreshold=FATAL"})
		klog.SetOutput(io.Discard)
	}
	s := startErrand(t)
	config := s.LoopbackConfig()
	config.QPS = -1
	remote, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	clienttest.Run(t, clienttest.Server{Clients: []clienttest.Client{{Name: "loopback", Interface: remote}, {Name: "in-process", Interface: s.Client()}}})
}

func startErrand(t *testing.T) *apiserver.Server {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e") // a unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := apiserver.New(ctx, apiserver.Config{DataDir: dir, RuntimeDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		_ = os.RemoveAll(dir)
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- err
		t.Fatalf("start the server: %v", err)
	}
	return s
}
