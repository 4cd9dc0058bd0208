package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testingclock "k8s.io/utils/clock/testing"

	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/cri/spec"
	"errand.dev/errand/internal/oci"
)

func TestStatusCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{oci.ErrNotFound, codes.NotFound},
		{oci.ErrNotRunning, codes.FailedPrecondition},
		{oci.ErrParentLost, codes.Unavailable},
		{spec.ErrInvalid, codes.InvalidArgument},
		{network.ErrExhausted, codes.ResourceExhausted},
		{errdefs.ErrAlreadyExists, codes.AlreadyExists},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errors.New("else"), codes.Unknown},
		{status.Error(codes.Unimplemented, "x"), codes.Unimplemented},
	} {
		err := toStatus(fmt.Errorf("doing: %w", tc.err))
		if got := status.Code(err); got != tc.want {
			t.Errorf("%v: code %v, want %v", tc.err, got, tc.want)
		}
		if !errors.Is(err, tc.err) {
			t.Errorf("%v is lost on the way", tc.err)
		}
	}
	if toStatus(nil) != nil {
		t.Error("no error became one")
	}
	if got := toStatus(errors.New("x")).Error(); got != "rpc error: code = Unknown desc = x" {
		t.Errorf("got %q, want what a socket's client sees", got)
	}
}

func TestPhases(t *testing.T) {
	p := containerCreated
	if err := advance(&p, containerRunning, "it"); err != nil || p != containerRunning {
		t.Errorf("phase %s, %v", p, err)
	}
	if err := advance(&p, containerCreated, "it"); !errdefs.IsFailedPrecondition(err) || p != containerRunning {
		t.Errorf("phase %s, %v", p, err)
	}
}

func TestResolvConf(t *testing.T) {
	got, err := resolvConf(&runtimeapi.DNSConfig{Servers: []string{"1.1.1.1", "::1"}, Searches: []string{"a", "b"}, Options: []string{"ndots:5", "rotate"}})
	if want := "search a b\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:5 rotate\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name          string
		network, ipc  runtimeapi.NamespaceMode
		wantForbidden bool
	}{
		{"net.core.somaxconn", 0, 0, false},
		{"net.core.somaxconn", runtimeapi.NamespaceMode_NODE, 0, true},
		{"kernel.shmmax", 0, 0, false},
		{"kernel.shmmax", 0, runtimeapi.NamespaceMode_NODE, true},
		{"kernel.panic", 0, 0, true},
		{"vm.swappiness", 0, 0, true},
	} {
		config := &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{tc.name: "1"}}}
		err := checkSysctls(config, &runtimeapi.NamespaceOption{Network: tc.network, Ipc: tc.ipc})
		if errors.Is(err, spec.ErrInvalid) != tc.wantForbidden {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestSignalNames(t *testing.T) {
	for n := 1; n <= sigRTMax; n++ {
		if n == 16 || n == 32 || n == 33 {
			continue // SIGSTKFLT has a name; the C library keeps two for itself
		}
		if signalOf(n) == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
			t.Errorf("signal %d has no name: %s", n, signalNames(n))
		}
	}
	if signalOf(15) != runtimeapi.Signal_SIGNAL_SIGTERM || signalOf(37) != runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3 {
		t.Error("wrong names")
	}
}

func TestCPURate(t *testing.T) {
	var s cpuSample
	at := time.Unix(1700000000, 0)
	if got := s.next(at, 0); got != 0 {
		t.Errorf("first look: %d", got)
	}
	if got := s.next(at.Add(2*time.Second), 1e9); got != 5e8 {
		t.Errorf("half a CPU: %d", got)
	}
	if got := s.next(at.Add(2*time.Second+time.Millisecond), 2e9); got != 5e8 {
		t.Errorf("too short to tell: %d", got)
	}
}

func TestSlowReaderMissesNoEnd(t *testing.T) {
	w := newWorld(t)
	s, err := New(t.Context(), w.life(0).config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, subscribed, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) })
	}()
	<-subscribed
	const containers = 3
	for i := range maxQueued {
		for c := range containers {
			s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, fmt.Sprint(c), "s", time.Unix(int64(i), 0))
		}
	}
	for c := range containers {
		s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, fmt.Sprint(c), "s", time.Unix(maxQueued, 0))
	}
	stopped, delivered := map[string]bool{}, 0
	for len(stopped) < containers {
		e := <-events
		delivered++
		if e.GetContainerEventType() == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			stopped[e.GetContainerId()] = true
		}
	}
	if delivered > 2*maxQueued {
		t.Errorf("%d events were kept for a slow reader", delivered)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestAShortIDMustBeUnique(t *testing.T) {
	all := map[string]int{"abc": 1, "abd": 2}
	if got, err := find(all, "abd", "x"); err != nil || got != 2 {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := find(all, "abc"[:3], "x"); err != nil || got != 1 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := find(all, "ab", "x"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("ambiguous: %v", err)
	}
	for _, id := range []string{"x", ""} {
		if _, err := find(all, id, "x"); !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// An errand that was killed in the middle of a start left it to the parent,
// which finished it after its successor had looked.
func TestAStartLeftBehindIsAdopted(t *testing.T) {
	w := newWorld(t)
	s := restart(w)
	pod, err := s.RunPodSandbox(t.Context(), podConfig("pod"), "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.CreateContainer(t.Context(), pod, containerConfig("c", "sh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.containers[id] = &oci.Status{ID: id, Pid: 43, State: oci.Running, StartedAt: time.Now()}
	w.mu.Unlock()
	if err := s.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if c, _ := s.container(id); c.state() != containerRunning || w.starts[id] != 0 {
		t.Errorf("phase %s, started %d times", c.state(), w.starts[id])
	}
}

// The pod's limits stay while a second sandbox of the pod uses its cgroup.
func TestCgroupGoesWithTheLastSandbox(t *testing.T) {
	w := newWorld(t)
	s := restart(w)
	var ids []string
	for attempt := range uint32(2) {
		config := podConfig("pod")
		config.Metadata.Attempt = attempt
		id, err := s.RunPodSandbox(t.Context(), config, "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	s = restart(w)
	for i, id := range ids {
		if len(w.cgroups) != 1 {
			t.Errorf("before the removal of sandbox %d: %v", i, w.cgroups)
		}
		if err := s.RemovePodSandbox(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	w.checkEmpty()
}

// Stopped sandboxes stay until their API objects go, and there may be many.
func TestStopTakesThePodsCgroup(t *testing.T) {
	w := newWorld(t)
	s := restart(w)
	var ids []string
	for _, name := range []string{"a", "b"} {
		id, err := s.RunPodSandbox(t.Context(), podConfig(name), "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for range 2 {
		if err := s.StopPodSandbox(t.Context(), ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.cgroups; len(got) != 1 || !got["/errand/b"] {
		t.Errorf("left with a stopped: %v", got)
	}
	s = restart(w)
	if got := w.cgroups; len(got) != 1 {
		t.Errorf("left by the successor: %v", got)
	}
	for _, id := range ids {
		if err := s.RemovePodSandbox(t.Context(), id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	w.checkEmpty()
}

// A stop that died before it took the cgroup, or one of a build that didn't, is
// made up for by the successor.
func TestCgroupOfAStoppedSandboxGoesAtStart(t *testing.T) {
	w := newWorld(t)
	s := restart(w)
	old, fresh := podConfig("pod"), podConfig("pod")
	fresh.Metadata.Attempt = 1
	id, err := s.RunPodSandbox(t.Context(), old, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StopPodSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.cgroups["/errand/pod"] = true
	s = restart(w)
	if len(w.cgroups) != 0 {
		t.Errorf("left: %v", w.cgroups)
	}
	if _, err := s.RunPodSandbox(t.Context(), fresh, ""); err != nil {
		t.Fatal(err)
	}
	if err := restart(w).RemovePodSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if len(w.cgroups) != 1 {
		t.Error("the cgroup of the second sandbox went with the first")
	}
}

// A cgroup that a client names and that isn't errand's may hold anything, and be
// the root.
func TestACgroupOfOthersIsLeftAlone(t *testing.T) {
	for _, parent := range []string{"/kubepods/pod1", "kubepods/pod1", "/", "/errand", "/errandother", "../../x"} {
		w := newWorld(t)
		s := restart(w)
		id, err := s.RunPodSandbox(t.Context(), podConfig("pod", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = parent }), "")
		if err != nil {
			t.Errorf("%q: %v", parent, err)
			continue
		}
		_, err = s.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: id})
		s = restart(w)
		if err := errors.Join(err, s.StopPodSandbox(t.Context(), id), s.RemovePodSandbox(t.Context(), id)); err != nil {
			t.Errorf("%q: %v", parent, err)
		}
		if len(w.changedCgroups) != 0 {
			t.Errorf("%q: killed, limited or removed: %v", parent, w.changedCgroups)
		}
	}
}

func TestUpdateBeforeStart(t *testing.T) {
	old := &runtimeapi.LinuxContainerResources{CpuShares: 2, MemoryLimitInBytes: 5, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}}
	got := merged(old, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 6, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "1GB"}}})
	if got.CpuShares != 2 || got.MemoryLimitInBytes != 6 || len(got.HugepageLimits) != 1 || old.MemoryLimitInBytes != 5 {
		t.Errorf("got %v", got)
	}
}

// inUserNamespace maps to IDs that files can be given to, by root or by oneself.
func inUserNamespace(c *runtimeapi.PodSandboxConfig) {
	from := func(own int) []*runtimeapi.IDMapping {
		if own == 0 {
			own = 65536
		}
		return []*runtimeapi.IDMapping{{HostId: uint32(own), Length: 65536}}
	}
	namespaceOptions(c).UsernsOptions = &runtimeapi.UserNamespace{Uids: from(os.Getuid()), Gids: from(os.Getgid())}
}

// A machine without user namespaces says so, to who asks first and to who tries.
func TestWithoutUserNamespaces(t *testing.T) {
	w := newWorld(t)
	w.noUsers = errors.New("ext3 can't map owners")
	s := restart(w)
	st, err := s.Status(t.Context(), true)
	if err != nil || st.GetRuntimeHandlers()[0].GetFeatures().GetUserNamespaces() || !strings.Contains(st.GetInfo()[InfoNoUserNamespaces], "ext3 can't map") {
		t.Errorf("status %v, %v", st, err)
	}
	_, err = s.RunPodSandbox(t.Context(), podConfig("pod", inUserNamespace), "")
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "ext3 can't map owners") {
		t.Errorf("a pod with a user namespace: %v", err)
	}
}

// Containers outlive the errand that made them, which may be one whose bundles were
// open to all who got as far.
func TestBundlesOfAnOlderErrandAreClosed(t *testing.T) {
	w := newWorld(t)
	s := restart(w)
	pod, err := s.RunPodSandbox(t.Context(), podConfig("pod"), "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.CreateContainer(t.Context(), pod, containerConfig("c", "sh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(s.bundlesDir(), id)
	if err := os.Chmod(bundle, 0o711); err != nil {
		t.Fatal(err)
	}
	restart(w)
	if st, err := os.Stat(bundle); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the bundle is %v, %v", st.Mode(), err)
	}
}

func TestUnsupportedPodsAreRefused(t *testing.T) {
	s := restart(newWorld(t))
	for text, edit := range map[string]func(*runtimeapi.PodSandboxConfig){
		"metadata is missing": func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil },
		"must be one range": func(c *runtimeapi.PodSandboxConfig) {
			namespaceOptions(c).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		},
		"the host's IPC namespace": func(c *runtimeapi.PodSandboxConfig) {
			inUserNamespace(c)
			namespaceOptions(c).Ipc = runtimeapi.NamespaceMode_NODE
		},
		"no IPv4 address": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 80, ContainerPort: 80, HostIp: "::1"}}
		},
		"ports are 1 to 65535": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 65536 + 80, ContainerPort: 80}}
		},
		"there is no protocol 7": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 80, ContainerPort: 80, Protocol: 7}}
		},
		"not an absolute path": func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" },
		"Windows":              func(c *runtimeapi.PodSandboxConfig) { c.Windows = &runtimeapi.WindowsPodSandboxConfig{} },
	} {
		_, err := s.RunPodSandbox(t.Context(), podConfig("pod", edit), "")
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
	if _, err := s.RunPodSandbox(t.Context(), podConfig("pod"), "gvisor"); err == nil || !strings.Contains(err.Error(), `no runtime for "gvisor" is configured: name one with --runtime gvisor=/PATH`) {
		t.Errorf("unknown handler: %v", err)
	}
}

// slowImages takes a second to walk a layer.
type slowImages struct {
	ImageStore
	clock *testingclock.FakeClock
	walks int
}

func (i *slowImages) RootfsUsage(context.Context, string) (images.Usage, error) {
	i.walks++
	i.clock.Step(time.Second)
	return images.Usage{Bytes: int64(i.walks)}, nil
}

func TestALayerThatTakesLongIsWalkedSeldom(t *testing.T) {
	i := &slowImages{clock: testingclock.NewFakeClock(time.Unix(100, 0))}
	s, c := &Service{cfg: Config{Clock: i.clock, Images: i}}, &container{}
	for range 30 {
		if got, err := s.layerUsage(t.Context(), c); err != nil || got.usage.Bytes != int64(i.walks) {
			t.Fatalf("%+v, %v after %d walks", got, err, i.walks)
		}
		i.clock.Step(time.Second)
	}
	if i.walks != 4 {
		t.Errorf("walked %d times in half a minute's asking", i.walks)
	}
}
