package resourcemetrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/utils/clock"
)

// node is one whose container "c" of the pod ns/p uses half a core, and which uses
// a whole one. It answers a request without a network, in a bubble's time.
type node struct {
	start time.Time
	mu    sync.Mutex
	asked []time.Duration
	err   error
}

func (n *node) RoundTrip(*http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	since := time.Since(n.start)
	n.asked = append(n.asked, since)
	if n.err != nil {
		return nil, n.err
	}
	w := httptest.NewRecorder()
	fmt.Fprintf(w, "node_cpu_usage_seconds_total %f\nnode_memory_working_set_bytes 2000\n", since.Seconds())
	const c = `{container="c",namespace="ns",pod="p"}`
	fmt.Fprintf(w, "container_cpu_usage_seconds_total%s %f\ncontainer_memory_working_set_bytes%s 1000\n", c, since.Seconds()/2, c)
	fmt.Fprintf(w, "container_start_time_seconds%s %f\n", c, float64(n.start.UnixMilli())/1000)
	return w.Result(), nil
}

func (n *node) GetConnectionInfo(_ context.Context, name types.NodeName) (*kubeletclient.ConnectionInfo, error) {
	if name != "n" {
		return nil, errors.New("no such node")
	}
	return &kubeletclient.ConnectionInfo{Scheme: "http", Hostname: "node", Port: "1", Transport: n}, nil
}

// fixture is the group's registries over one node with one pod.
func fixture(t *testing.T, n *node) (*Pods, *Nodes) {
	t.Helper()
	n.start = time.Now()
	pods := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)
	add := func(to cache.Indexer, o any) {
		if err := to.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	pod := func(name string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: phase},
		}
	}
	add(pods, pod("p", corev1.PodRunning))
	add(pods, pod("done", corev1.PodSucceeded))
	add(pods, pod("young", corev1.PodRunning))
	add(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	add(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "unreachable"}})
	common := registry{TableConvertor: table{}, sampler: &sampler{
		nodes: corelisters.NewNodeLister(nodes), connections: n, clock: clock.RealClock{},
	}}
	return &Pods{registry: common, pods: corelisters.NewPodLister(pods)}, &Nodes{registry: common, nodes: corelisters.NewNodeLister(nodes)}
}

func inNamespace(t *testing.T, ns string) context.Context {
	return genericapirequest.WithNamespace(t.Context(), ns)
}

// Nobody asks, nobody measures; who asks gets a rate over the time that is told.
func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		pods, _ := fixture(t, n)
		time.Sleep(10 * time.Second)
		ask := func(wantTook, wantWindow time.Duration, wantReadings int) {
			t.Helper()
			began, before := time.Now(), len(n.asked)
			o, err := pods.Get(inNamespace(t, "ns"), "p", nil)
			if err != nil {
				t.Fatal(err)
			}
			m := o.(*metrics.PodMetrics)
			if took := time.Since(began); took != wantTook || m.Window.Duration != wantWindow || len(n.asked)-before != wantReadings {
				t.Errorf("took %s with %d readings, window %s; want %s with %d, %s", took, len(n.asked)-before, m.Window.Duration, wantTook, wantReadings, wantWindow)
			}
			if cpu := m.Containers[0].Usage.Cpu(); cpu.MilliValue() != 500 {
				t.Errorf("%s of CPU", cpu)
			}
		}
		ask(minWindow, time.Second, 2) // the first one
		ask(0, time.Second, 0)         // at once again
		time.Sleep(2 * time.Second)
		ask(0, 2*time.Second, 1)
		time.Sleep(15 * time.Second)
		ask(0, 15*time.Second, 1)
		time.Sleep(time.Hour)
		ask(minWindow, time.Second, 2) // what was an hour ago says nothing of now
	})
}

// Many who ask at once share the readings.
func TestSharedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		pods, nodes := fixture(t, n)
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := pods.List(inNamespace(t, ""), nil); err != nil {
					t.Error(err)
				}
				if _, err := nodes.List(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		// One who goes away takes nobody with it.
		ctx, cancel := context.WithTimeout(inNamespace(t, ""), time.Millisecond)
		defer cancel()
		if _, err := pods.List(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		wg.Wait()
		if len(n.asked) != 2 {
			t.Errorf("read at %v", n.asked)
		}
	})
}

func TestListAndGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		pods, nodes := fixture(t, n)
		time.Sleep(time.Second)
		list := func(ns string, options *internalversion.ListOptions) []metrics.PodMetrics {
			o, err := pods.List(inNamespace(t, ns), options)
			if err != nil {
				t.Fatal(err)
			}
			return o.(*metrics.PodMetricsList).Items
		}
		selector, err := labels.Parse("app=other")
		if err != nil {
			t.Fatal(err)
		}
		if got := list("", nil); len(got) != 1 || got[0].Name != "p" || got[0].Labels["app"] != "p" || got[0].Containers[0].Usage.Memory().Value() != 1000 {
			t.Errorf("%+v", got)
		}
		if got := list("elsewhere", nil); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		if got := list("", &internalversion.ListOptions{LabelSelector: selector}); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		for name, want := range map[string]string{
			"none": `pods "ns/none" not found`, "done": `podmetrics.metrics.k8s.io "ns/done" not found`, "young": `podmetrics.metrics.k8s.io "ns/young" not found`,
		} {
			if _, err := pods.Get(inNamespace(t, "ns"), name, nil); !apierrors.IsNotFound(err) || err.Error() != want {
				t.Errorf("%s: %v", name, err)
			}
		}
		o, err := nodes.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		items := o.(*metrics.NodeMetricsList).Items
		if len(items) != 1 || items[0].Name != "n" || items[0].Usage.Cpu().MilliValue() != 1000 || items[0].Usage.Memory().Value() != 2000 {
			t.Errorf("%+v", items)
		}
		for name, want := range map[string]string{"none": `nodes "none" not found`, "unreachable": `nodemetrics.metrics.k8s.io "unreachable" not found`} {
			if _, err := nodes.Get(t.Context(), name, nil); !apierrors.IsNotFound(err) || err.Error() != want {
				t.Errorf("%s: %v", name, err)
			}
		}
		shown, err := pods.ConvertToTable(t.Context(), &metrics.PodMetricsList{Items: list("", nil)}, nil)
		if err != nil || fmt.Sprint(shown.Rows[0].Cells) != "[p 500m 1k 1s]" {
			t.Errorf("%+v, %v", shown, err)
		}
	})
}

// A node that fails is as one without usage, and doesn't fail the others.
func TestANodeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{err: &url.Error{Op: "Get", URL: "node", Err: errors.New("refused")}}
		_, nodes := fixture(t, n)
		var o runtime.Object
		o, err := nodes.List(t.Context(), nil)
		if err != nil || len(o.(*metrics.NodeMetricsList).Items) != 0 {
			t.Errorf("%v, %v", o, err)
		}
	})
}
