package node

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/fakecri"
	"errand.dev/errand/internal/node/userns"
)

// announcing is a runtime whose status has more than the fake one's.
type announcing struct {
	internalapi.RuntimeService
	status *runtimeapi.StatusResponse
}

func (a announcing) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return a.status, nil
}

func handlers(features ...bool) *runtimeapi.StatusResponse {
	st := &runtimeapi.StatusResponse{}
	for _, f := range features {
		st.RuntimeHandlers = append(st.RuntimeHandlers, &runtimeapi.RuntimeHandler{Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: f}})
	}
	return st
}

func announce(status *runtimeapi.StatusResponse) func(*agent) {
	return func(a *agent) { a.cri = announcing{a.cri, status} }
}

func inUserNamespace(p *v1.Pod) { p.Spec.HostUsers = ptr.To(false) }

// firstID is where the IDs of the pod's sandbox begin, on the host.
func firstID(w *world, pod *v1.Pod) uint32 {
	w.t.Helper()
	users := w.runtime.SandboxConfig(string(pod.UID)).GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if len(users.GetUids()) != 1 || users.GetUids()[0].GetLength() != userns.IDsPerPod {
		w.t.Fatalf("the sandbox's user namespace is %v", users)
	}
	return users.GetUids()[0].GetHostId()
}

// A pod's IDs are its sandbox's, its containers' and its mounts', the same ones over an
// agent's restart, and nobody's after its end.
func TestUserNamespace(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(inUserNamespace).obj()
	host := makePod("host").obj()
	w.api.create(pod)
	w.api.create(host)
	a := w.start(announce(handlers(true)))
	w.waitPhase(pod, v1.PodRunning)
	w.waitPhase(host, v1.PodRunning)
	first := firstID(w, pod)
	config := w.runtime.Config(string(pod.UID), pod.Spec.Containers[0].Name)
	own := config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if own.GetUids()[0].GetHostId() != first || len(config.GetMounts()) == 0 {
		t.Errorf("the container's user namespace is %v, its mounts %v", own, config.GetMounts())
	}
	for _, m := range config.GetMounts() {
		if len(m.GetUidMappings()) != 1 || m.GetUidMappings()[0].GetHostId() != first || len(m.GetGidMappings()) != 1 {
			t.Errorf("a mount isn't mapped: %v", m)
		}
	}
	if users := w.runtime.SandboxConfig(string(host.UID)).GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(); users != nil {
		t.Errorf("a pod that asked for nothing has the user namespace %v", users)
	}

	a.kill()
	a = w.start(announce(handlers(true)))
	other := makePod("other").with(inUserNamespace).obj()
	w.api.create(other)
	w.waitPhase(other, v1.PodRunning)
	if firstID(w, other) == first {
		t.Errorf("two pods' IDs begin at %d", first)
	}
	if again, err := a.node.users.Allot(pod.UID); err != nil || again.GetUids()[0].GetHostId() != first {
		t.Errorf("the next agent has the IDs %v for the pod, %v; want from %d", again, err, first)
	}
	if got := allotted(t, a); len(got) != 2 {
		t.Errorf("IDs are allotted to %v", got)
	}
	if err := w.runtime.Exit(string(pod.UID), pod.Spec.Containers[0].Name, 0); err != nil {
		t.Fatal(err)
	}
	w.waitPhase(pod, v1.PodSucceeded)
	a.waitIdle()
	if got := allotted(t, a); !slices.Equal(got, []types.UID{other.UID}) {
		t.Errorf("after a pod's end IDs are allotted to %v", got)
	}
}

// allotted are the pods that have IDs, as the next agent would find them.
func allotted(t *testing.T, a *agent) []types.UID {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.node.cfg.RootDir, "*", "userns"))
	if err != nil {
		t.Fatal(err)
	}
	var uids []types.UID
	for _, f := range files {
		uids = append(uids, types.UID(filepath.Base(filepath.Dir(f))))
	}
	return uids
}

func TestWithoutUserNamespaces(t *testing.T) {
	why := handlers(false)
	why.Info = map[string]string{infoNoUserNamespaces: "the kernel is old"}
	for name, tc := range map[string]struct {
		status *runtimeapi.StatusResponse
		want   string
	}{
		"none":         {handlers(false), "spec.hostUsers=false: the container runtime has no user namespaces here"},
		"says why":     {why, "user namespaces here: the kernel is old"},
		"says nothing": {handlers(), "the container runtime has no user namespaces here"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").with(inUserNamespace).obj()
			w.api.create(pod)
			w.start(announce(tc.status))
			got := w.waitPhase(pod, v1.PodFailed)
			if got.Status.Reason != "UnsupportedPodSpec" || !strings.Contains(got.Status.Message, tc.want) || !w.events.has("UnsupportedPodSpec: can't set spec.hostUsers=false") {
				t.Errorf("%s: %s; events:\n%s", got.Status.Reason, got.Status.Message, w.events)
			}
		})
	}
}

// A container that can't be started counts as a failure of its pod's.
func TestUserNamespaceMetrics(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{Exits: true} }
	a := w.start(announce(handlers(true)))
	registry := metrics.NewKubeRegistry()
	if err := a.node.metrics.Register(registry); err != nil { // before, nothing is counted
		t.Fatal(err)
	}
	pod := makePod("p").with(inUserNamespace).obj()
	w.api.create(pod)
	w.api.create(makePod("host").obj())
	w.waitPhase(pod, v1.PodSucceeded)
	wantCounters(t, registry, 1, 0)
	w.runtime.Fail("StartContainer", context.DeadlineExceeded)
	fails := makePod("fails").with(inUserNamespace).obj()
	w.api.create(fails)
	w.waitWaiting(fails, "RunContainerError")
	wantCounters(t, registry, 2, 1)
}

func wantCounters(t *testing.T, registry metrics.KubeRegistry, started, failed int) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, f := range families {
		got[f.GetName()] = int(f.GetMetric()[0].GetCounter().GetValue())
	}
	const prefix = "kubelet_started_user_namespaced_pods_"
	if got[prefix+"total"] != started || got[prefix+"errors_total"] != failed {
		t.Errorf("counted are %d and %d, want %d and %d", got[prefix+"total"], got[prefix+"errors_total"], started, failed)
	}
}
