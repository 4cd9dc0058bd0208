package clusterengine

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/apiserver"
)

// patience bounds every wait: only a hang meets it.
const patience = time.Minute

// cluster is a real API without a controller or a node, which all tests share.
// Each works in a namespace of its own.
var cluster struct {
	kubeconfig string // the administrator's
	admin      kubernetes.Interface
}

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	code, err := runWithCluster(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runWithCluster(run func() int) (int, error) {
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	api, err := apiserver.New(ctx, apiserver.Config{DataDir: dir, RuntimeDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- api.Run(ctx) }()
	select {
	case <-api.Ready():
	case err := <-ended:
		return 1, err
	}
	cluster.kubeconfig = api.Kubeconfig()
	cfg, err := clientcmd.BuildConfigFromFlags("", cluster.kubeconfig)
	if err != nil {
		return 1, err
	}
	cfg.QPS = -1
	if cluster.admin, err = kubernetes.NewForConfig(cfg); err != nil {
		return 1, err
	}
	code := run()
	cancel()
	return code, <-ended
}
