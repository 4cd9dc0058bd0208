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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri"
	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/critest"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
	"errand.dev/errand/internal/oci/shimapi"
	"errand.dev/errand/internal/slowness"
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
	must(m.t, os.Chmod(m.names.RuntimeDir, 0o711)) // as errand serve makes it
	m.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), slowness.Times(20*time.Second))
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
		Handlers: []string{"runc"}, HolderCommand: []string{shimPath, shimapi.Pause}, Version: "test",
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
	ctx, cancel := context.WithTimeout(context.Background(), slowness.Times(time.Minute))
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

func (l *life) pod(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name}, Hostname: name,
		LogDirectory: filepath.Join(l.machine.dataDir, "logs", name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: l.machine.names.CgroupParent + "/" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
}

func shell(name, script string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: busybox},
		Command: []string{"sh", "-c", script}, LogPath: name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		}},
	}
}

// run makes a pod with one container that runs the script.
func (l *life) run(name, script string) (pod, id string) {
	l.machine.t.Helper()
	ctx := context.Background()
	pod, err := l.RunPodSandbox(ctx, l.pod(name), "")
	must(l.machine.t, err)
	id, err = l.CreateContainer(ctx, pod, shell("c", script), nil)
	must(l.machine.t, err)
	must(l.machine.t, l.StartContainer(ctx, id))
	return pod, id
}

// wait waits for a container's end.
func (l *life) wait(id string) *runtimeapi.ContainerStatus {
	l.machine.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slowness.Times(time.Minute))
	defer cancel()
	events, subscribed := make(chan *runtimeapi.ContainerEventResponse), make(chan struct{})
	go l.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) }) //nolint:errcheck // ends with ctx
	<-subscribed
	for {
		resp, err := l.ContainerStatus(ctx, id, false)
		must(l.machine.t, err)
		if st := resp.GetStatus(); st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		select {
		case <-events:
		case <-ctx.Done():
			l.machine.t.Fatalf("container %s doesn't end", id)
		}
	}
}

func TestContainersOutliveTheRuntime(t *testing.T) {
	m := newMachine(t)
	first := m.start()
	gate := filepath.Join(m.dataDir, "gate")
	must(t, os.Mkdir(gate, 0o755))
	pod, ends := first.run("ends", "exit 5")
	first.wait(ends)
	_, during := first.run("during", "trap 'exit 6' TERM; while :; do sleep 0.01; done")
	_, stays := first.run("stays", "sleep 1000")
	first.stop()
	// It ends while no runtime looks.
	must(t, m.oci.Signal(t.Context(), during, unix.SIGTERM, false))

	second := m.start()
	defer second.destroy()
	if st := second.wait(during); st.GetExitCode() != 6 {
		t.Errorf("ended meanwhile: %v", st)
	}
	if st := second.wait(ends); st.GetExitCode() != 5 {
		t.Errorf("ended before: %v", st)
	}
	resp, err := second.ContainerStatus(t.Context(), stays, false)
	if err != nil || resp.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("should run: %v, %v", resp, err)
	}
	if _, _, err := second.ExecSync(t.Context(), stays, []string{"true"}, 0); err != nil {
		t.Errorf("exec after the restart: %v", err)
	}
	sb, err := second.PodSandboxStatus(t.Context(), pod, false)
	must(t, err)
	_, again := second.run("again", "true")
	if st := second.wait(again); st.GetExitCode() != 0 {
		t.Errorf("a new pod after the restart: %v", st)
	}
	if ip := sb.GetStatus().GetNetwork().GetIp(); ip == "" {
		t.Error("the address is forgotten")
	}
}

func TestTheParentIsKilled(t *testing.T) {
	m := newMachine(t)
	l := m.start()
	defer l.destroy()
	_, id := l.run("pod", "sleep 1000")
	must(t, unix.Kill(shimPid(t, m), unix.SIGKILL))
	st := l.wait(id)
	if st.GetExitCode() != 137 || st.GetReason() != oci.ReasonShimLost || !strings.Contains(st.GetMessage(), "errand-shim") {
		t.Errorf("status %v", st)
	}
	_, again := l.run("again", "exit 3")
	if st := l.wait(again); st.GetExitCode() != 3 {
		t.Errorf("a new pod afterwards: %v", st)
	}
	resp, err := l.Status(t.Context(), false)
	must(t, err)
	for _, c := range resp.GetStatus().GetConditions() {
		if !c.GetStatus() {
			t.Errorf("condition %v", c)
		}
	}
}

// shimPid finds the parent of the machine's containers by its command line.
func shimPid(t testing.TB, m *machine) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range dirs {
		b, _ := os.ReadFile(f)
		if bytes.Contains(b, []byte("errand-shim")) && bytes.Contains(b, []byte(m.names.RuntimeDir+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			must(t, err)
			return pid
		}
	}
	t.Fatal("no errand-shim runs")
	return 0
}
