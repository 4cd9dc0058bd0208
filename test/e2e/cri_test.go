//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/test/harness"
)

const criBusybox = "docker.io/library/busybox:latest"

// criErrand is an errand cri with the kubelet's client of it.
type criErrand struct {
	*harness.Errand
	t       *testing.T
	cfg     harness.Config
	logs    string
	runtime internalapi.RuntimeService
	images  internalapi.ImageManagerService
}

func startCRI(t *testing.T) *criErrand {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &criErrand{t: t, logs: filepath.Join(dir, "logs"), cfg: harness.Config{
		Bin: bin, DataDir: filepath.Join(dir, "data"), CRI: filepath.Join(dir, "cri.sock"), RegistriesConf: registriesConf,
	}}
	leakcheck.Check(t, e.cfg.DataDir)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := e.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := e.TakeOff(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("errand said:\n%s", e.Log())
		}
	})
	e.start()
	return e
}

// start starts the process, at first or again after its end. The client is the
// first one's: it finds its way back by itself.
func (e *criErrand) start() {
	e.t.Helper()
	var err error
	if e.Errand, err = harness.Start(e.t.Context(), e.cfg); err != nil {
		e.t.Fatal(err)
	}
	if e.runtime != nil {
		return
	}
	endpoint := "unix://" + e.cfg.CRI
	e.runtime, err = criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(patience).
		WithUseStreaming(true).Build(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	e.images, err = criclient.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(patience).
		WithUseStreaming(true).Build(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		e.runtime.Close(context.Background())
		e.images.Close(context.Background())
	})
}

func (e *criErrand) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *criErrand) sandbox() (string, *runtimeapi.PodSandboxConfig) {
	e.t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "ns", Uid: "uid"}, Hostname: "pod",
		LogDirectory: e.logs, Labels: map[string]string{"app": "cri"},
	}
	id, err := e.runtime.RunPodSandbox(e.t.Context(), config, "")
	e.must(err)
	return id, config
}

// run starts a container with a script, which finds the host's directory dir at
// /dir.
func (e *criErrand) run(sandbox string, config *runtimeapi.PodSandboxConfig, name, script, dir string) string {
	e.t.Helper()
	id, err := e.runtime.CreateContainer(e.t.Context(), sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: criBusybox},
		Command: []string{"sh", "-c", script}, LogPath: name + ".log",
		Mounts: []*runtimeapi.Mount{{ContainerPath: "/dir", HostPath: dir}},
	}, config)
	e.must(err)
	e.must(e.runtime.StartContainer(e.t.Context(), id))
	return id
}

func (e *criErrand) status(id string) *runtimeapi.ContainerStatus {
	e.t.Helper()
	resp, err := e.runtime.ContainerStatus(e.t.Context(), id, false)
	e.must(err)
	return resp.GetStatus()
}

// awaitExit waits, from event to event, for a container's end.
func (e *criErrand) awaitExit(id string) *runtimeapi.ContainerStatus {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	events, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan error, 1)
	subscribed := make(chan struct{})
	go func() {
		ended <- e.runtime.GetContainerEvents(ctx, events, func(stream runtimeapi.RuntimeService_GetContainerEventsClient) {
			stream.Header() //nolint:errcheck // it comes once no event can be missed
			close(subscribed)
		})
	}()
	<-subscribed
	for {
		if st := e.status(id); st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		select {
		case <-events:
		case err := <-ended:
			e.t.Fatalf("the events ended: %v", err)
		case <-ctx.Done():
			e.t.Fatalf("container %s doesn't end: %v", id, e.status(id))
		}
	}
}

func (e *criErrand) exec(id string, cmd ...string) string {
	e.t.Helper()
	stdout, _, err := e.runtime.ExecSync(e.t.Context(), id, cmd, patience)
	e.must(err)
	return strings.TrimSpace(string(stdout))
}

// Containers outlive the process that serves them, whether it is stopped or
// killed, and what they did meanwhile is known to the next one.
func TestCRIContainersOutliveTheServer(t *testing.T) {
	e := startCRI(t)
	_, err := e.images.PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "busybox"}, nil, nil)
	e.must(err)
	sandbox, config := e.sandbox()
	dir := t.TempDir()
	lasting := e.run(sandbox, config, "lasting", "echo begun; exec sleep 1000", dir)
	before := e.status(lasting)
	had := e.address(sandbox)
	for how, end := range map[string]func() error{
		"killed":  func() error { return e.Kill() },
		"stopped": func() error { _, err := e.Stop(t.Context()); return err },
	} {
		// One container ends while nobody serves: once its pipe is opened.
		pipe := filepath.Join(dir, how)
		e.must(unix.Mkfifo(pipe, 0o600))
		ending := e.run(sandbox, config, "ending-"+how, "cat /dir/"+how+"; exit 7", dir)
		e.must(end())
		e.must(os.WriteFile(pipe, []byte("go"), 0))
		e.start()
		// The shim took the time of the start a moment before the server did.
		st := e.status(lasting)
		moved := time.Duration(st.GetStartedAt() - before.GetStartedAt()).Abs()
		if st.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || moved > time.Second {
			t.Errorf("after the server was %s: %v, before it %v", how, st, before)
		}
		if got := e.address(sandbox); got != had {
			t.Errorf("after the server was %s the pod has the address %s, before it %s", how, got, had)
		}
		if got := e.exec(lasting, "hostname"); got != "pod" {
			t.Errorf("hostname: %q", got)
		}
		if st := e.awaitExit(ending); st.GetExitCode() != 7 || st.GetReason() != "Error" {
			t.Errorf("what ended while the server was %s: %v, want exit code 7", how, st)
		}
		if b, err := os.ReadFile(filepath.Join(e.logs, "ending-"+how+".log")); err != nil || !strings.HasSuffix(string(b), "stdout P go\n") {
			t.Errorf("its log: %q, %v", b, err)
		}
	}
	e.must(e.runtime.RemovePodSandbox(t.Context(), sandbox))
	left, err := e.runtime.ListContainers(t.Context(), nil)
	e.must(err)
	if len(left) != 0 {
		t.Errorf("left after the sandbox's removal: %v", left)
	}
}

// address is the pod's.
func (e *criErrand) address(sandbox string) string {
	e.t.Helper()
	resp, err := e.runtime.PodSandboxStatus(e.t.Context(), sandbox, false)
	e.must(err)
	if resp.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		e.t.Errorf("the sandbox is %s", resp.GetStatus().GetState())
	}
	return resp.GetStatus().GetNetwork().GetIp()
}

// refused runs errand with arguments, which is to fail, and returns what it says.
func (e *criErrand) refused(args ...string) string {
	e.t.Helper()
	out, err := exec.CommandContext(e.t.Context(), filepath.Join(bin, "errand"), args...).CombinedOutput()
	if err == nil {
		e.t.Errorf("errand %s succeeded", strings.Join(args, " "))
	}
	return string(out)
}

// A data directory and a socket have one errand each, which is told by name.
func TestCRIHasItsDataDirectoryAndSocketAlone(t *testing.T) {
	e := startCRI(t)
	other := filepath.Join(filepath.Dir(e.cfg.DataDir), "other")
	socket := "unix://" + filepath.Join(filepath.Dir(e.cfg.DataDir), "other.sock")
	held := fmt.Sprintf("is held by process %d (errand cri)", e.PID())
	for _, tc := range []struct {
		want string
		args []string
	}{
		{held, []string{"serve", "--data-dir", e.cfg.DataDir, "--listen", "127.0.0.1:0"}},
		{held, []string{"cri", "--data-dir", e.cfg.DataDir, "--listen", socket}},
		{held, []string{"drain", "--data-dir", e.cfg.DataDir}},
		{fmt.Sprintf("errand (pid %d) serves on the socket", e.PID()), []string{"cri", "--data-dir", other, "--listen", "unix://" + e.cfg.CRI}},
		{"must be absolute", []string{"cri", "--data-dir", other, "--listen", "unix://cri.sock"}},
	} {
		if out := e.refused(tc.args...); !strings.Contains(out, tc.want) {
			t.Errorf("errand %s: %s, want %q", strings.Join(tc.args, " "), out, tc.want)
		}
	}
	// Images are asked of the one that runs.
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "errand"), "image", "pull", "--data-dir", e.cfg.DataDir, "busybox").CombinedOutput()
	if err != nil {
		t.Fatalf("errand image pull: %v: %s", err, out)
	}
	status, err := e.images.ImageStatus(t.Context(), &runtimeapi.ImageSpec{Image: criBusybox}, false)
	if err != nil || status.GetImage() == nil {
		t.Errorf("the image after errand image pull: %v, %v", status, err)
	}
}
