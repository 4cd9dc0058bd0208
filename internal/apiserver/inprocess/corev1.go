package inprocess

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// coreV1 serves pods and nodes, events, and the small objects that pods read.
type coreV1 struct {
	typedcorev1.CoreV1Interface
	pods       *resource[*corev1.Pod, *corev1.PodList]
	nodes      *resource[*corev1.Node, *corev1.NodeList]
	events     *resource[*corev1.Event, *corev1.EventList]
	namespaces *resource[*corev1.Namespace, *corev1.NamespaceList]
	configMaps *resource[*corev1.ConfigMap, *corev1.ConfigMapList]
	secrets    *resource[*corev1.Secret, *corev1.SecretList]
}

func newCoreV1(b *backend, remote typedcorev1.CoreV1Interface) (*coreV1, error) {
	gvr := corev1.SchemeGroupVersion.WithResource
	g := &coreV1{CoreV1Interface: remote}
	var errs [6]error
	g.pods, errs[0] = newResource(b, gvr("pods"),
		func() *corev1.Pod { return new(corev1.Pod) }, func() *corev1.PodList { return new(corev1.PodList) }, "status", "binding", "eviction")
	g.nodes, errs[1] = newResource(b, gvr("nodes"),
		func() *corev1.Node { return new(corev1.Node) }, func() *corev1.NodeList { return new(corev1.NodeList) }, "status")
	g.events, errs[2] = newResource(b, gvr("events"),
		func() *corev1.Event { return new(corev1.Event) }, func() *corev1.EventList { return new(corev1.EventList) })
	g.namespaces, errs[3] = newResource(b, gvr("namespaces"),
		func() *corev1.Namespace { return new(corev1.Namespace) }, func() *corev1.NamespaceList { return new(corev1.NamespaceList) }, "status")
	g.configMaps, errs[4] = newResource(b, gvr("configmaps"),
		func() *corev1.ConfigMap { return new(corev1.ConfigMap) }, func() *corev1.ConfigMapList { return new(corev1.ConfigMapList) })
	g.secrets, errs[5] = newResource(b, gvr("secrets"),
		func() *corev1.Secret { return new(corev1.Secret) }, func() *corev1.SecretList { return new(corev1.SecretList) })
	return g, errors.Join(errs[:]...)
}

type pods struct {
	*client[*corev1.Pod, *corev1.PodList]
	remotePods
}

type remotePods struct{ typedcorev1.PodInterface }

func (g *coreV1) Pods(namespace string) typedcorev1.PodInterface {
	remote := g.CoreV1Interface.Pods(namespace)
	return &pods{newClient(g.pods, namespace, remote), remotePods{remote}}
}

// Bind assigns the pod named in the binding to a node.
func (c *pods) Bind(ctx context.Context, binding *corev1.Binding, opts metav1.CreateOptions) error {
	e := c.sub["binding"]
	if isNil(binding) || !c.onItem(e, binding.Name) || e.creater == nil {
		return c.remotePods.Bind(ctx, binding, opts)
	}
	request := call{verb: "create", method: "POST", namespace: c.namespace, name: binding.Name, timeout: writeTimeout}
	return e.send(ctx, request, binding, func(ctx context.Context, request call, wire *wireForm) error {
		result, err := e.create(ctx, request, wire, opts)
		if err != nil {
			return err
		}
		return failure(result)
	})
}

// EvictV1 deletes the pod named in the eviction as its disruption budget allows.
func (c *pods) EvictV1(ctx context.Context, eviction *policyv1.Eviction) error {
	e := c.sub["eviction"]
	if isNil(eviction) || !c.onItem(e, eviction.Name) || e.creater == nil {
		return c.remotePods.EvictV1(ctx, eviction)
	}
	request := call{verb: "create", method: "POST", namespace: c.namespace, name: eviction.Name, timeout: writeTimeout}
	return e.send(ctx, request, eviction, func(ctx context.Context, request call, wire *wireForm) error {
		result, err := e.create(ctx, request, wire, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return failure(result)
	})
}

type nodes struct {
	*client[*corev1.Node, *corev1.NodeList]
	remoteNodes
}

type remoteNodes struct{ typedcorev1.NodeInterface }

func (g *coreV1) Nodes() typedcorev1.NodeInterface {
	remote := g.CoreV1Interface.Nodes()
	return &nodes{newClient(g.nodes, "", remote), remoteNodes{remote}}
}

// PatchStatus applies a strategic merge patch to a node's status.
func (c *nodes) PatchStatus(ctx context.Context, name string, data []byte) (*corev1.Node, error) {
	return c.Patch(ctx, name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
}

type namespaces struct {
	*client[*corev1.Namespace, *corev1.NamespaceList]
	remoteNamespaces
}

type remoteNamespaces struct{ typedcorev1.NamespaceInterface }

func (g *coreV1) Namespaces() typedcorev1.NamespaceInterface {
	remote := g.CoreV1Interface.Namespaces()
	return &namespaces{newClient(g.namespaces, "", remote), remoteNamespaces{remote}}
}

type configMaps struct {
	*client[*corev1.ConfigMap, *corev1.ConfigMapList]
	remoteConfigMaps
}

type remoteConfigMaps struct{ typedcorev1.ConfigMapInterface }

func (g *coreV1) ConfigMaps(namespace string) typedcorev1.ConfigMapInterface {
	remote := g.CoreV1Interface.ConfigMaps(namespace)
	return &configMaps{newClient(g.configMaps, namespace, remote), remoteConfigMaps{remote}}
}

type secrets struct {
	*client[*corev1.Secret, *corev1.SecretList]
	remoteSecrets
}

type remoteSecrets struct{ typedcorev1.SecretInterface }

func (g *coreV1) Secrets(namespace string) typedcorev1.SecretInterface {
	remote := g.CoreV1Interface.Secrets(namespace)
	return &secrets{newClient(g.secrets, namespace, remote), remoteSecrets{remote}}
}
