//go:build node

package cri_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"errand.dev/errand/internal/cri"
	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/critest"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
	"errand.dev/errand/test/registry"
)

// shimPath is the errand-shim built for these tests.
var shimPath string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("/tmp", "eshim")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shimPath = filepath.Join(dir, "errand-shim")
		build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", shimPath, "errand.dev/errand/cmd/errand-shim")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
		return m.Run()
	}())
}

const busybox = "docker.io/library/busybox:latest"

// machine is a data directory with all that a runtime needs, over the lives of
// several runtimes.
type machine struct {
	t       testing.TB
	dataDir string
	names   instance.Names
	store   *images.Store
	cgroups *cgroups.Tree
	oci     *oci.Client
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("containers need root")
	}
	dir, err := os.MkdirTemp("/tmp", "e")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	leakcheck.Check(t, dir)
	m := &machine{t: t, dataDir: dir}
	m.names, err = instance.For(dir)
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(m.names.RuntimeDir)) })
	m.cgroups, err = cgroups.Open(cgroups.DefaultRoot)
	must(t, err)
	m.store, err = images.New(t.Context(), images.Config{Root: filepath.Join(dir, "images")})
	must(t, err)
	t.Cleanup(func() { must(t, m.store.Close()) })
	m.loadBusybox()
	m.connect()
	return m
}

func (m *machine) loadBusybox() {
	m.t.Helper()
	img, err := registry.BusyboxImage(registry.Owner{})
	must(m.t, err)
	ref, err := name.NewTag(busybox)
	must(m.t, err)
	var buf bytes.Buffer
	must(m.t, tarball.Write(ref, img, &buf))
	_, err = m.store.Load(m.t.Context(), &buf, nil)
	must(m.t, err)
}

func (m *machine) connect() {
	m.t.Helper()
	client, err := oci.Connect(m.t.Context(), oci.Config{
		RuntimeDir: m.names.RuntimeDir, ShimPath: shimPath, CgroupParent: m.names.CgroupParent,
		Handlers: map[string]oci.Handler{"runc": {Path: ocitest.Runc(m.t)}}, DefaultHandler: "runc",
	})
	must(m.t, err)
	m.oci = client
	m.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		must(m.t, client.Drain(ctx, true))
		must(m.t, m.cgroups.Remove(m.names.CgroupParent))
	})
}

// life is one run of the runtime.
type life struct {
	*cri.Service
	machine *machine
	net     *network.Manager
	stop    func()
}

// start starts a runtime over what the last one left. The last one of a test
// removes everything.
func (m *machine) start() *life {
	m.t.Helper()
	l, err := m.tryStart()
	must(m.t, err)
	return l
}

func (m *machine) tryStart() (*life, error) {
	net, err := network.New(context.Background(), network.Config{
		Bridge: m.names.Bridge, Table: m.names.NFTable, StateDir: filepath.Join(m.dataDir, "network"),
	})
	if err != nil {
		return nil, err
	}
	s, err := cri.New(context.Background(), cri.Config{
		Root: filepath.Join(m.dataDir, "cri"), RuntimeDir: m.names.RuntimeDir, CgroupParent: m.names.CgroupParent,
		Handlers: []string{"runc"}, HolderCommand: []string{shimPath, "pause"}, Version: "test",
		Runtime: m.oci, Images: m.store, Network: net, Cgroups: m.cgroups,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	l := &life{Service: s, machine: m, net: net}
	l.stop = func() {
		cancel()
		if err := errors.Join(<-done, s.Close(context.Background())); err != nil {
			m.t.Error(err)
		}
		net.Close()
	}
	return l, nil
}

// destroy ends the runtime for good.
func (l *life) destroy() {
	l.machine.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := l.Service.Destroy(ctx)
	l.stop()
	if err != nil {
		l.machine.t.Errorf("destroy: %v", err)
	}
	must(l.machine.t, destroyNetwork(l.machine))
}

func destroyNetwork(m *machine) error {
	net, err := network.New(context.Background(), network.Config{
		Bridge: m.names.Bridge, Table: m.names.NFTable, StateDir: filepath.Join(m.dataDir, "network"),
	})
	if err != nil {
		return err
	}
	return net.Destroy()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l *life) env() critest.Env {
	return critest.Env{
		Runtime: l.Service, Image: busybox, CgroupParent: l.machine.names.CgroupParent,
		LogDir: filepath.Join(l.machine.dataDir, "logs"), SharedPID: true,
	}
}

func TestContract(t *testing.T) {
	m := newMachine(t)
	l := m.start()
	defer l.destroy()
	critest.Run(t, l.env())
}
