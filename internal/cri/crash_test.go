package cri

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/oci"
)

// script is a pod's whole life, with one container that fails to start, one
// that ends by itself and one that is stopped.
func script(w *world, s *Service, config *runtimeapi.PodSandboxConfig) error {
	ctx := context.Background()
	pod, err := s.RunPodSandbox(ctx, config, "runc")
	if err != nil {
		return err
	}
	bad, err := s.CreateContainer(ctx, pod, containerConfig("bad", "no-such-command"), nil)
	if err != nil {
		return err
	}
	if s.StartContainer(ctx, bad) == nil {
		return fmt.Errorf("a command that doesn't exist was started")
	}
	var ids []string
	for _, name := range []string{"ends", "stopped"} {
		config := containerConfig(name, "sh")
		config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: "busybox"}, Readonly: true}}
		id, err := s.CreateContainer(ctx, pod, config, nil)
		if err != nil {
			return err
		}
		if err := s.StartContainer(ctx, id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	w.exit(ids[0], 5)
	c, err := s.container(ids[0])
	if err != nil {
		return err
	}
	<-c.ended
	if err := s.StopContainer(ctx, ids[1], 1); err != nil {
		return err
	}
	if err := s.RemoveContainer(ctx, ids[0]); err != nil {
		return err
	}
	if err := s.StopPodSandbox(ctx, pod); err != nil {
		return err
	}
	return s.RemovePodSandbox(ctx, pod)
}

// runUntilDeath lives through the script, or dies in it. It reports whether it
// got to the end, and after how many steps.
func runUntilDeath(w *world, dieAt int, config *runtimeapi.PodSandboxConfig) (finished bool, steps int) {
	l := w.life(dieAt)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var s *Service
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if s, err = New(ctx, l.config()); err != nil {
			w.t.Errorf("first life: %v", err)
			return
		}
		go s.Run(ctx) //nolint:errcheck // dies with the life
		if err := script(w, s, config); err != nil {
			w.t.Errorf("script: %v", err)
		}
		finished = true
	}()
	select {
	case <-done:
	case <-l.dead:
	}
	if s != nil && finished {
		s.background.wait()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return finished && !l.isDead(), l.count
}

// Whenever errand dies, its successor finds what is there, and what it doesn't
// know is gone.
func TestDeathAtEveryStep(t *testing.T) {
	for name, edit := range map[string]func(*runtimeapi.PodSandboxConfig){
		"plain":      func(*runtimeapi.PodSandboxConfig) {},
		"shared PID": func(c *runtimeapi.PodSandboxConfig) { namespaceOptions(c).Pid = runtimeapi.NamespaceMode_POD },
		"users": func(c *runtimeapi.PodSandboxConfig) {
			inUserNamespace(c)
			namespaceOptions(c).Pid = runtimeapi.NamespaceMode_POD
		},
		"host": func(c *runtimeapi.PodSandboxConfig) {
			namespaceOptions(c).Network, namespaceOptions(c).Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		},
	} {
		t.Run(name, func(t *testing.T) {
			for dieAt := 1; ; dieAt++ {
				w := newWorld(t)
				finished, steps := runUntilDeath(w, dieAt, podConfig("pod", edit))
				checkSuccessor(w, dieAt)
				if t.Failed() {
					t.Fatalf("died at step %d", dieAt)
				}
				if finished {
					t.Logf("%d steps", steps)
					return
				}
			}
		})
	}
}

func namespaceOptions(c *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return c.Linux.SecurityContext.NamespaceOptions
}

func checkSuccessor(w *world, dieAt int) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := w.life(0)
	s, err := New(ctx, l.config())
	if err != nil {
		w.t.Fatalf("died at %d: the successor doesn't start: %v", dieAt, err)
	}
	s.background.wait()
	w.checkConsistent(s, l)
	go s.Run(ctx) //nolint:errcheck // ends with ctx
	// The same pod, or another attempt at it, can be made and run.
	config := podConfig("pod")
	config.Metadata.Attempt = 1
	if err := script(w, s, config); err != nil {
		w.t.Errorf("died at %d: the successor: %v", dieAt, err)
	}
	if err := s.Destroy(ctx); err != nil {
		w.t.Errorf("died at %d: destroy: %v", dieAt, err)
	}
	w.checkEmpty()
}

// checkConsistent compares what the runtime knows with what there is.
func (w *world) checkConsistent(s *Service, l *fakeLife) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, st := range w.containers {
		c, sb := s.containers[id], s.sandboxes[id]
		switch {
		case c == nil && sb == nil:
			w.t.Errorf("the parent has a container that nobody knows: %v", st)
		case c != nil && (c.phase != containerRunning || st.State != oci.Running):
			w.t.Errorf("container %s is %s, and with the parent %s", id, c.phase, st.State)
		}
	}
	for id, n := range w.starts {
		if n > 1 {
			w.t.Errorf("container %s was started %d times", id, n)
		}
	}
	for id := range w.roots {
		if s.containers[id] == nil {
			w.t.Errorf("a root of nobody's: %s", id)
		}
	}
	for id := range w.pins {
		if sb := s.sandboxes[id]; sb == nil || sb.phase != sandboxReady {
			w.t.Errorf("namespaces of nobody's: %s", id)
		}
	}
	for target := range w.mounts {
		id := strings.Split(strings.TrimPrefix(target, filepath.Join(w.dir, "run")+"/"), "/")[1]
		if s.containers[id] == nil && s.sandboxes[id] == nil {
			w.t.Errorf("a mount of nobody's: %s", target)
		}
	}
	for _, c := range s.containers {
		if c.phase == containerExited && c.exit.Code == 0 {
			w.t.Errorf("an end was made up: %+v", c.exit)
		}
	}
	for id, sb := range s.sandboxes {
		if sb.phase == sandboxReady && sb.address.IsValid() && l.held[id] != sb.address {
			w.t.Errorf("the address of %s isn't held", id)
		}
	}
	if len(s.sandboxes) == 0 && len(w.cgroups) > 0 {
		w.t.Errorf("cgroups of nobody's: %v", slices.Collect(maps.Keys(w.cgroups)))
	}
}

func (w *world) checkEmpty() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range map[string]int{
		"containers": len(w.containers), "roots": len(w.roots), "namespaces": len(w.pins), "mounts": len(w.mounts), "cgroups": len(w.cgroups),
	} {
		if n > 0 {
			w.t.Errorf("%d %s are left", n, what)
		}
	}
	for _, dir := range []string{"cri/sandboxes", "cri/containers"} {
		if entries, _ := os.ReadDir(filepath.Join(w.dir, dir)); len(entries) > 0 {
			w.t.Errorf("%s holds %v", dir, entries)
		}
	}
}

// makeRunning runs one container in a pod and then abandons the runtime.
func makeRunning(w *world) (pod, id string) {
	w.t.Helper()
	l := w.life(0)
	s, err := New(context.Background(), l.config())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx := context.Background()
	if pod, err = s.RunPodSandbox(ctx, podConfig("pod"), ""); err != nil {
		w.t.Fatal(err)
	}
	if id, err = s.CreateContainer(ctx, pod, containerConfig("c", "sh"), nil); err != nil {
		w.t.Fatal(err)
	}
	if err := s.StartContainer(ctx, id); err != nil {
		w.t.Fatal(err)
	}
	close(l.dead)
	return pod, id
}

func restart(w *world) *Service {
	w.t.Helper()
	s, err := New(context.Background(), w.life(0).config())
	if err != nil {
		w.t.Fatal(err)
	}
	s.background.wait()
	return s
}

func TestEndMeanwhileIsTold(t *testing.T) {
	w := newWorld(t)
	pod, id := makeRunning(w)
	w.exit(id, 5)
	s := restart(w)
	st, err := s.ContainerStatus(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.GetStatus(); got.GetExitCode() != 5 || got.GetReason() != "Error" || got.GetStartedAt() == 0 {
		t.Errorf("status %v", got)
	}
	if sb, err := s.PodSandboxStatus(t.Context(), pod, false); err != nil || sb.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("sandbox %v, %v", sb, err)
	}
	// And once more: now only the record knows.
	if st, err = restart(w).ContainerStatus(t.Context(), id, false); err != nil || st.GetStatus().GetExitCode() != 5 {
		t.Errorf("status %v, %v", st, err)
	}
}

func TestReboot(t *testing.T) {
	w := newWorld(t)
	pod, id := makeRunning(w)
	w.reboot()
	s := restart(w)
	st, err := s.ContainerStatus(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.GetStatus(); got.GetExitCode() != 137 || got.GetReason() != "ContainerStatusUnknown" || got.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("status %v", got)
	}
	if sb, err := s.PodSandboxStatus(t.Context(), pod, false); err != nil || sb.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("sandbox %v, %v", sb, err)
	}
	if err := s.RemovePodSandbox(t.Context(), pod); err != nil {
		t.Error(err)
	}
	w.checkEmpty()
}

// reboot takes away what doesn't survive one, and gives the records another
// boot's ID.
func (w *world) reboot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.containers)
	clear(w.pins)
	clear(w.mounts)
	clear(w.cgroups)
	if err := os.RemoveAll(filepath.Join(w.dir, "run")); err != nil {
		w.t.Fatal(err)
	}
	own, err := bootID()
	if err != nil {
		w.t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(w.dir, "cri"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(b), own, "another-boot")), 0o600)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
