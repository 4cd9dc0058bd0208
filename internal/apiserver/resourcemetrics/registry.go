package resourcemetrics

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/metrics/pkg/apis/metrics"
)

// registry is what pods and nodes of the group have in common.
type registry struct {
	rest.TableConvertor
	sampler *sampler
}

// Destroy implements rest.Storage.
func (registry) Destroy() {}

// filter says which objects a list's options ask for.
type filter struct {
	labels labels.Selector
	fields fields.Selector
}

func newFilter(options *internalversion.ListOptions) filter {
	f := filter{labels.Everything(), fields.Everything()}
	if options != nil && options.LabelSelector != nil {
		f.labels = options.LabelSelector
	}
	if options != nil && options.FieldSelector != nil {
		f.fields = options.FieldSelector
	}
	return f
}

func (f filter) takes(o metav1.Object) bool {
	return f.labels.Matches(labels.Set(o.GetLabels())) &&
		f.fields.Matches(fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()})
}

// metaFor is the metadata of the usage of an object: nothing is stored, so that
// it is as old as the question.
func (r *registry) metaFor(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels(), CreationTimestamp: metav1.NewTime(r.sampler.clock.Now()),
	}
}

func (u usage) list() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(u.nanoCPU, resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(u.memory, resource.BinarySI),
	}
}

// Pods is the usage of running pods: the registry of "pods".
type Pods struct {
	registry
	pods corelisters.PodLister
}

var (
	_ rest.Getter               = &Pods{}
	_ rest.Lister               = &Pods{}
	_ rest.Scoper               = &Pods{}
	_ rest.KindProvider         = &Pods{}
	_ rest.SingularNameProvider = &Pods{}
)

// New implements rest.Storage.
func (*Pods) New() runtime.Object { return &metrics.PodMetrics{} }

// NewList implements rest.Lister.
func (*Pods) NewList() runtime.Object { return &metrics.PodMetricsList{} }

// Kind implements rest.KindProvider.
func (*Pods) Kind() string { return "PodMetrics" }

// NamespaceScoped implements rest.Scoper.
func (*Pods) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (*Pods) GetSingularName() string { return "" }

// List implements rest.Lister. Pods without usage are left out.
func (p *Pods) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	f := newFilter(options)
	pods, err := p.pods.Pods(genericapirequest.NamespaceValue(ctx)).List(f.labels)
	if err != nil {
		return nil, err
	}
	pods = slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return pod.Status.Phase != corev1.PodRunning || !f.takes(pod) })
	out := &metrics.PodMetricsList{Items: []metrics.PodMetrics{}}
	if len(pods) == 0 {
		return out, nil
	}
	found, err := p.sampler.usage(ctx)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if m, ok := p.metrics(found, pod); ok {
			out.Items = append(out.Items, *m)
		}
	}
	slices.SortFunc(out.Items, func(a, b metrics.PodMetrics) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Get implements rest.Getter. A pod that there isn't, or that doesn't run or has
// no usage yet, is NotFound: the first as a Pod, the others as PodMetrics.
func (p *Pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	namespace := genericapirequest.NamespaceValue(ctx)
	pod, err := p.pods.Pods(namespace).Get(name)
	if err != nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), namespace+"/"+name)
	}
	missing := apierrors.NewNotFound(metrics.Resource("podmetrics"), namespace+"/"+name)
	if pod.Status.Phase != corev1.PodRunning {
		return nil, missing
	}
	found, err := p.sampler.usage(ctx)
	if err != nil {
		return nil, err
	}
	if m, ok := p.metrics(found, pod); ok {
		return m, nil
	}
	return nil, missing
}

func (p *Pods) metrics(found pair, pod *corev1.Pod) (*metrics.PodMetrics, bool) {
	containers, ok := found.pod(pod.Spec.NodeName, podKey{pod.Namespace, pod.Name})
	if !ok {
		return nil, false
	}
	m := &metrics.PodMetrics{ObjectMeta: p.metaFor(pod)}
	for name, u := range containers {
		m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: name, Usage: u.list()})
		// One window for all: that of the container which was read first.
		if m.Timestamp.IsZero() || u.at.Before(m.Timestamp.Time) {
			m.Timestamp, m.Window = metav1.NewTime(u.at), window(u)
		}
	}
	slices.SortFunc(m.Containers, func(a, b metrics.ContainerMetrics) int { return cmp.Compare(a.Name, b.Name) })
	return m, true
}

func window(u usage) metav1.Duration {
	return metav1.Duration{Duration: u.window.Round(time.Millisecond)}
}

// Nodes is the usage of nodes: the registry of "nodes".
type Nodes struct {
	registry
	nodes corelisters.NodeLister
}

var (
	_ rest.Getter               = &Nodes{}
	_ rest.Lister               = &Nodes{}
	_ rest.Scoper               = &Nodes{}
	_ rest.KindProvider         = &Nodes{}
	_ rest.SingularNameProvider = &Nodes{}
)

// New implements rest.Storage.
func (*Nodes) New() runtime.Object { return &metrics.NodeMetrics{} }

// NewList implements rest.Lister.
func (*Nodes) NewList() runtime.Object { return &metrics.NodeMetricsList{} }

// Kind implements rest.KindProvider.
func (*Nodes) Kind() string { return "NodeMetrics" }

// NamespaceScoped implements rest.Scoper.
func (*Nodes) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*Nodes) GetSingularName() string { return "" }

// List implements rest.Lister. Nodes without usage are left out.
func (n *Nodes) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	f := newFilter(options)
	nodes, err := n.nodes.List(f.labels)
	if err != nil {
		return nil, err
	}
	out := &metrics.NodeMetricsList{Items: []metrics.NodeMetrics{}}
	nodes = slices.DeleteFunc(nodes, func(node *corev1.Node) bool { return !f.takes(node) })
	if len(nodes) == 0 {
		return out, nil
	}
	found, err := n.sampler.usage(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if m, ok := n.metrics(found, node); ok {
			out.Items = append(out.Items, *m)
		}
	}
	slices.SortFunc(out.Items, func(a, b metrics.NodeMetrics) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Get implements rest.Getter. A node that there isn't, or that has told no usage,
// is NotFound: the first as a Node, the other as NodeMetrics.
func (n *Nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := n.nodes.Get(name)
	if err != nil {
		return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
	}
	found, err := n.sampler.usage(ctx)
	if err != nil {
		return nil, err
	}
	if m, ok := n.metrics(found, node); ok {
		return m, nil
	}
	return nil, apierrors.NewNotFound(metrics.Resource("nodemetrics"), name)
}

func (n *Nodes) metrics(found pair, node *corev1.Node) (*metrics.NodeMetrics, bool) {
	u, ok := found.node(node.Name)
	if !ok {
		return nil, false
	}
	return &metrics.NodeMetrics{
		ObjectMeta: n.metaFor(node), Timestamp: metav1.NewTime(u.at), Window: window(u), Usage: u.list(),
	}, true
}

// table is how kubectl get shows usage.
type table struct{}

// ConvertToTable implements rest.TableConvertor.
func (table) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the pod or node."},
		{Name: "CPU", Type: "string", Format: "quantity", Description: "CPU used, in cores, over the window."},
		{Name: "Memory", Type: "string", Format: "quantity", Description: "Working set in bytes."},
		{Name: "Window", Type: "string", Format: "duration", Description: "Time over which CPU was measured."},
	}}
	switch o := object.(type) {
	case *metrics.PodMetrics:
		t.Rows = append(t.Rows, podRow(o))
	case *metrics.PodMetricsList:
		for i := range o.Items {
			t.Rows = append(t.Rows, podRow(&o.Items[i]))
		}
	case *metrics.NodeMetrics:
		t.Rows = append(t.Rows, nodeRow(o))
	case *metrics.NodeMetricsList:
		for i := range o.Items {
			t.Rows = append(t.Rows, nodeRow(&o.Items[i]))
		}
	default:
		return nil, fmt.Errorf("%T isn't of the group %s", object, metrics.GroupName)
	}
	return t, nil
}

func podRow(m *metrics.PodMetrics) metav1.TableRow {
	var cpu, memory resource.Quantity
	for _, c := range m.Containers {
		cpu.Add(c.Usage[corev1.ResourceCPU])
		memory.Add(c.Usage[corev1.ResourceMemory])
	}
	return metav1.TableRow{
		Cells:  []any{m.Name, cpu.String(), memory.String(), m.Window.Duration.String()},
		Object: runtime.RawExtension{Object: m},
	}
}

func nodeRow(m *metrics.NodeMetrics) metav1.TableRow {
	cpu, memory := m.Usage[corev1.ResourceCPU], m.Usage[corev1.ResourceMemory]
	return metav1.TableRow{
		Cells:  []any{m.Name, cpu.String(), memory.String(), m.Window.Duration.String()},
		Object: runtime.RawExtension{Object: m},
	}
}
