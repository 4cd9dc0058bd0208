//go:build node

package containerd_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/critest"
	"errand.dev/errand/internal/criclient"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/test/containerd"
	"errand.dev/errand/test/registry"
)

// The contract of a runtime, as errand's node relies on it, holds for containerd
// behind errand's client.
func TestContract(t *testing.T) { contract(t, false) }

// It also holds where the answers are CRI-O's.
func TestContractAsCRIO(t *testing.T) { contract(t, true) }

func contract(t *testing.T, asCRIO bool) {
	if os.Geteuid() != 0 {
		t.Fatal("containers need root")
	}
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	dir, err := os.MkdirTemp("/tmp", "e")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	leakcheck.Check(t, dir)
	names, err := instance.For(dir)
	must(t, err)
	images, err := registry.Start(registry.Options{Dir: filepath.Join(dir, "blobs")})
	must(t, err)
	t.Cleanup(func() { must(t, images.Close()) })
	busybox, err := registry.Busybox(registry.Owner{})
	must(t, err)
	must(t, images.Push("library/busybox:latest", busybox))
	server, err := containerd.Start(t.Context(), containerd.Config{Bin: bin, Images: images, AsCRIO: asCRIO})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd said:\n%s", server.Log())
		}
		must(t, server.Close())
	})
	tree, err := cgroups.Open(cgroups.DefaultRoot)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Remove(names.CgroupParent)) })
	client := connect(t, criclient.Config{Endpoint: server.Endpoint(), Owner: names.ID, Cgroups: tree})

	const image = "docker.io/library/busybox:latest"
	_, err = client.Images().PullImage(t.Context(), &runtimeapi.ImageSpec{Image: image}, nil, nil)
	must(t, err)
	critest.Run(t, critest.Env{
		Runtime: client.Runtime(), Image: image, CgroupParent: names.CgroupParent, LogDir: filepath.Join(dir, "logs"), SharedPID: true, Foreign: true, CRIO: asCRIO,
	})
}

// connect runs a client until the test's end.
func connect(t *testing.T, cfg criclient.Config) *criclient.Client {
	t.Helper()
	client, err := criclient.New(cfg)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	t.Cleanup(func() { stop(); must(t, <-ended) })
	select {
	case <-client.Settled():
	case <-time.After(time.Minute):
		t.Fatal("the client never came to know whether containerd is there")
	}
	must(t, client.Err())
	return client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
