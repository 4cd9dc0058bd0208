package registration

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testingclock "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a fake machine with a fake runtime.
type box struct {
	mu      sync.Mutex
	under   v1.NodeConditionType // the pressure that there is, "" for none
	network bool                 // NetworkReady
	down    error
	images  []*runtimeapi.Image
}

func newBox() *box {
	return &box{
		network: true,
		images: []*runtimeapi.Image{
			{RepoTags: []string{"small:1"}, Size: 1}, {RepoTags: []string{"big:1"}, RepoDigests: []string{"big@sha256:0"}, Size: 9},
		},
	}
}

func (b *box) set(change func(*box)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

func (b *box) Facts() (Facts, error) {
	return Facts{MilliCPU: 2000, Memory: 4 * gibi, Disk: 20 * gibi, BootID: "boot", Kernel: "6.1", OSImage: "Test", Swap: gibi}, nil
}

func (b *box) Under(kind v1.NodeConditionType) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.under == kind
}

func (b *box) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return nil, b.down
	}
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: b.network, Reason: "R", Message: "m"},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}}},
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

func (b *box) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "errand", RuntimeVersion: "v0.1.0"}, nil
}

func (b *box) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.images, nil
}

// world is a Registration at work.
type world struct {
	*Registration
	box    *box
	client *fake.Clientset
	clock  *testingclock.FakeClock
	nodes  chan *v1.Node // what the API server gets
	leases chan *coordinationv1.Lease
	done   chan error
}

// newWorld registers with a fake API server that has these objects.
func newWorld(t *testing.T, b *box, objects ...runtime.Object) *world {
	t.Helper()
	w, factory := newIdle(t, b, objects...)
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	go func() { w.done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-w.done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return w
}

// newIdle is newWorld without the loop: tests call check themselves.
func newIdle(t *testing.T, b *box, objects ...runtime.Object) (*world, informers.SharedInformerFactory) {
	t.Helper()
	w := &world{
		box:    b,
		client: fake.NewSimpleClientset(objects...),
		clock:  testingclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		nodes:  make(chan *v1.Node, 1000),
		leases: make(chan *coordinationv1.Lease, 1000),
		done:   make(chan error, 1),
	}
	seen := func(action clienttesting.Action) (bool, runtime.Object, error) {
		w.nodes <- action.(clienttesting.CreateAction).GetObject().(*v1.Node).DeepCopy()
		return false, nil, nil
	}
	w.client.PrependReactor("create", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		action.(clienttesting.CreateAction).GetObject().(*v1.Node).UID = types.UID("uid-" + time.Now().String())
		return seen(action)
	})
	w.client.PrependReactor("update", "nodes", seen)
	w.client.PrependReactor("create", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		w.leases <- action.(clienttesting.CreateAction).GetObject().(*coordinationv1.Lease)
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(w.client, 0)
	r, err := New(Config{
		Client: w.client, Nodes: factory.Core().V1().Nodes(), NodeName: "n", Runtime: b, Images: b, Host: b, Under: b.Under,
		NodeIP: net.IPv4(10, 0, 0, 1), PodCIDRs: []string{"10.85.0.0/16"}, Version: "v1.37.2+errand", Clock: w.clock,
		Labels: map[string]string{"errand.dev/x": "y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Registration = r
	return w, factory
}

// next is the next version of the Node that is written.
func (w *world) next(t *testing.T) *v1.Node {
	t.Helper()
	select {
	case n := <-w.nodes:
		return n
	case <-time.After(30 * time.Second):
		t.Fatal("the Node was not written")
		return nil
	}
}

func status(n *v1.Node, kind v1.NodeConditionType) v1.ConditionStatus {
	for _, c := range n.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

func TestRegisters(t *testing.T) {
	w := newWorld(t, newBox())
	n := w.next(t)
	<-w.Ready()
	if status(n, v1.NodeReady) != v1.ConditionTrue || len(n.Spec.Taints) != 0 {
		t.Errorf("created as %+v", n)
	}
	wantLabels := map[string]string{
		"kubernetes.io/hostname": "n", "kubernetes.io/os": "linux", "kubernetes.io/arch": w.arch, "errand.dev/x": "y",
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": w.arch,
	}
	if diff := cmp.Diff(wantLabels, n.Labels); diff != "" {
		t.Error(diff)
	}
	if n.Spec.PodCIDR != "10.85.0.0/16" || len(n.Spec.PodCIDRs) != 1 {
		t.Errorf("pod CIDRs %q %v", n.Spec.PodCIDR, n.Spec.PodCIDRs)
	}
	swap := int64(gibi)
	wantInfo := v1.NodeSystemInfo{
		BootID: "boot", KernelVersion: "6.1", OSImage: "Test", ContainerRuntimeVersion: "errand://v0.1.0", KubeletVersion: "v1.37.2+errand",
		OperatingSystem: "linux", Architecture: w.arch, Swap: &v1.NodeSwapStatus{Capacity: &swap},
	}
	if diff := cmp.Diff(wantInfo, n.Status.NodeInfo); diff != "" {
		t.Error(diff)
	}
	wantImages := []v1.ContainerImage{{Names: []string{"big@sha256:0", "big:1"}, SizeBytes: 9}, {Names: []string{"small:1"}, SizeBytes: 1}}
	if diff := cmp.Diff(wantImages, n.Status.Images); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}, {Type: "Hostname", Address: "n"}}, n.Status.Addresses); diff != "" {
		t.Error(diff)
	}
	if a := w.Allocatable(); a.Cpu().String() != "2" || !n.Status.Allocatable.Memory().Equal(*a.Memory()) {
		t.Errorf("allocatable %v", a)
	}
	if len(n.Status.RuntimeHandlers) != 1 || !*n.Status.Features.SupplementalGroupsPolicy {
		t.Errorf("features %+v %+v", n.Status.RuntimeHandlers, n.Status.Features)
	}
	w.wantLease(t)
}

// wantLease waits for the lease.
func (w *world) wantLease(t *testing.T) {
	t.Helper()
	select {
	case l := <-w.leases:
		if *l.Spec.HolderIdentity != "n" || *l.Spec.LeaseDurationSeconds != 40 || l.OwnerReferences[0].Kind != "Node" {
			t.Errorf("lease %+v", l)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no lease")
	}
}

func TestReadyFollowsTheRuntime(t *testing.T) {
	b := newBox()
	b.down = errors.New("no socket")
	w := newWorld(t, b)
	n := w.next(t)
	if status(n, v1.NodeReady) != v1.ConditionFalse || n.Spec.Taints[0].Key != v1.TaintNodeNotReady {
		t.Errorf("created as %+v", n)
	}
	select {
	case <-w.Ready():
		t.Error("Ready before the runtime is")
	default:
	}
	b.set(func(b *box) { b.down = nil })
	w.Recheck()
	if n = w.next(t); len(n.Spec.Taints) != 0 {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	if n = w.next(t); status(n, v1.NodeReady) != v1.ConditionTrue {
		t.Errorf("conditions %+v", n.Status.Conditions)
	}
	<-w.Ready()
	b.set(func(b *box) { b.network = false })
	w.Recheck()
	if n = w.next(t); n.Spec.Taints[0].Key != v1.TaintNodeNotReady {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	n = w.next(t)
	ready := n.Status.Conditions[len(n.Status.Conditions)-1]
	if ready.Status != v1.ConditionFalse || ready.Message != "container runtime network not ready: NetworkReady=false reason:R message:m" {
		t.Errorf("condition %+v", ready)
	}
}

func TestWritesOnlyNews(t *testing.T) {
	w, _ := newIdle(t, newBox())
	check := func() {
		t.Helper()
		if ready, err := w.check(t.Context()); err != nil || !ready {
			t.Fatal(ready, err)
		}
	}
	check()
	w.next(t)
	for passed := CheckInterval; passed < ReportInterval; passed += CheckInterval {
		w.clock.Step(CheckInterval)
		check()
	}
	if len(w.nodes) != 0 {
		t.Fatalf("the Node was written without news: %+v", w.next(t).Status)
	}
	w.clock.Step(CheckInterval)
	check()
	c := w.next(t).Status.Conditions[0]
	if !c.LastHeartbeatTime.Time.Equal(w.clock.Now()) {
		t.Errorf("heartbeat %v at %v", c.LastHeartbeatTime, w.clock.Now())
	}
	if c.LastTransitionTime.Time.Equal(w.clock.Now()) {
		t.Error("the heartbeat moved the transition time")
	}
	w.box.set(func(b *box) { b.under = v1.NodeDiskPressure })
	check()
	if n := w.next(t); n.Spec.Taints[0].Key != v1.TaintNodeDiskPressure {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	if n := w.next(t); status(n, v1.NodeDiskPressure) != v1.ConditionTrue {
		t.Errorf("conditions %v", n.Status.Conditions)
	}
}

// Who announces a pressure goes on once the API has it.
func TestAnnounce(t *testing.T) {
	w := newWorld(t, newBox())
	<-w.Ready()
	w.box.set(func(b *box) { b.under = v1.NodeMemoryPressure })
	w.Announce(t.Context())
	n, err := w.client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status(n, v1.NodeMemoryPressure) != v1.ConditionTrue || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != v1.TaintNodeMemoryPressure {
		t.Errorf("taints %v, conditions %v", n.Spec.Taints, n.Status.Conditions)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Announce(ctx) // returns, whatever comes of it
}

func TestInterval(t *testing.T) {
	w, _ := newIdle(t, newBox())
	for i, want := range []time.Duration{firstUnready, 2 * firstUnready, 4 * firstUnready} {
		if got := w.interval(false, nil); got != want {
			t.Errorf("attempt %d: %v, want %v", i, got, want)
		}
	}
	for range 20 {
		w.interval(false, nil)
	}
	if got := w.interval(false, nil); got != CheckInterval {
		t.Errorf("a runtime that is down is asked every %v", got)
	}
	if got := w.interval(true, nil); got != CheckInterval {
		t.Errorf("ready: %v", got)
	}
	if got := w.interval(false, nil); got != firstUnready {
		t.Errorf("after being ready: %v", got)
	}
	if got := w.interval(true, errors.New("x")); got != retryInterval {
		t.Errorf("after an error: %v", got)
	}
}

func TestUsersSayIsKept(t *testing.T) {
	existing := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", Labels: map[string]string{"mine": "1", "kubernetes.io/os": "plan9"}},
		Spec: v1.NodeSpec{
			PodCIDR: "10.85.0.0/16", PodCIDRs: []string{"10.85.0.0/16"}, Unschedulable: true,
			Taints: []v1.Taint{{Key: "dedicated", Effect: v1.TaintEffectNoSchedule}},
		},
	}
	w := newWorld(t, newBox(), existing)
	n := w.next(t)
	if n.Labels["mine"] != "1" || n.Labels["kubernetes.io/os"] != "linux" || !n.Spec.Unschedulable {
		t.Errorf("%+v", n)
	}
	if len(n.Spec.Taints) != 2 || n.Spec.Taints[0].Key != "dedicated" || n.Spec.Taints[1].Key != v1.TaintNodeUnschedulable {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	<-w.Ready()
}

// Extended resources are given to a Node by a patch of its capacity, and taken so.
func TestExtendedResources(t *testing.T) {
	const licence = v1.ResourceName("example.com/licence")
	w := newWorld(t, newBox())
	w.next(t)
	<-w.Ready()
	patch := func(p string) *v1.Node {
		t.Helper()
		if _, err := w.client.CoreV1().Nodes().Patch(t.Context(), "n", types.MergePatchType, []byte(p), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		return w.next(t)
	}
	n := patch(`{"status":{"capacity":{"example.com/licence":"2"}}}`)
	for list, amounts := range map[string]v1.ResourceList{"capacity": n.Status.Capacity, "allocatable": n.Status.Allocatable} {
		if got := amounts[licence]; got.Value() != 2 {
			t.Errorf("%s: %v", list, amounts)
		}
	}
	w.box.set(func(b *box) { b.under = v1.NodeMemoryPressure })
	w.Announce(t.Context())
	w.next(t) // the taint
	if n = w.next(t); n.Status.Capacity.Name(licence, resource.DecimalSI).Value() != 2 {
		t.Errorf("after news of the machine: %v", n.Status.Capacity)
	}
	n = patch(`{"status":{"capacity":{"example.com/licence":null}}}`)
	if _, has := n.Status.Allocatable[licence]; has {
		t.Errorf("taken, but left in %v", n.Status.Allocatable)
	}
}

// A write of somebody else's, between a look at the Node and the write that
// follows from it, isn't undone.
func TestOthersWritesAreKept(t *testing.T) {
	w, _ := newIdle(t, newBox())
	if _, err := w.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.next(t)
	w.client.PrependReactor("update", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		n := action.(clienttesting.UpdateAction).GetObject().(*v1.Node)
		if n.ResourceVersion == "" {
			t.Error("the write doesn't say which Node it is about")
		}
		return true, nil, apierrors.NewConflict(v1.Resource("nodes"), n.Name, errors.New("changed meanwhile"))
	})
	w.client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "5"}}, nil
	})
	if _, err := w.check(t.Context()); !apierrors.IsConflict(err) {
		t.Fatal(err)
	}
	select {
	case <-w.recheck:
	default:
		t.Error("there is no other look at once")
	}
}

func TestCordonAndDeletionAreAnsweredAtOnce(t *testing.T) {
	w := newWorld(t, newBox())
	n := w.next(t)
	<-w.Ready()
	n.Spec.Unschedulable = true
	if _, err := w.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.next(t) // the update above
	if n = w.next(t); len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != v1.TaintNodeUnschedulable {
		t.Errorf("taints %v", n.Spec.Taints)
	}
	if err := w.client.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n = w.next(t); status(n, v1.NodeReady) != v1.ConditionTrue || n.Spec.Unschedulable {
		t.Errorf("registered again as %+v", n)
	}
}

func TestAnotherPodCIDRIsRefused(t *testing.T) {
	existing := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: v1.NodeSpec{PodCIDR: "10.1.0.0/16", PodCIDRs: []string{"10.1.0.0/16"}}}
	w := newWorld(t, newBox(), existing)
	err := <-w.done
	w.done <- nil
	if !errors.Is(err, errForeignNode) || !strings.Contains(err.Error(), "10.1.0.0/16") || !strings.Contains(err.Error(), "10.85.0.0/16") {
		t.Errorf("error %v", err)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := New(Config{NodeName: "n"})
	for _, field := range []string{"Client", "Nodes", "Runtime", "Images", "Host", "Version"} {
		if err == nil || !strings.Contains(err.Error(), field+" is not set") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func BenchmarkCheckWithoutNews(b *testing.B) {
	box := newBox()
	client := fake.NewSimpleClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	r, err := New(Config{
		Client: client, Nodes: factory.Core().V1().Nodes(), NodeName: "n", Runtime: box, Images: box, Host: LinuxHost(b.TempDir()), Version: "v",
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.check(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
