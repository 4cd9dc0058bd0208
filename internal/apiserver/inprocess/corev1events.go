package inprocess

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// events adds to the generic client what event recorders write through: the verbs that take the namespace from the event.
type events struct {
	*client[*corev1.Event, *corev1.EventList]
	remoteEvents
	group *coreV1
}

type remoteEvents struct{ typedcorev1.EventInterface }

func (g *coreV1) Events(namespace string) typedcorev1.EventInterface {
	return g.eventsIn(namespace)
}

func (g *coreV1) eventsIn(namespace string) *events {
	remote := g.CoreV1Interface.Events(namespace)
	return &events{client: newClient(g.events, namespace, remote), remoteEvents: remoteEvents{remote}, group: g}
}

// of returns the client of the event's namespace, or nil if that is neither the client's own nor one that a client of all namespaces may write to.
func (c *events) of(event *corev1.Event) *events {
	switch {
	case event.Namespace == c.namespace:
		return c
	case c.namespace == "":
		return c.group.eventsIn(event.Namespace)
	default:
		return nil
	}
}

// CreateWithEventNamespace creates an event in its own namespace.
//
// Deprecated: use CreateWithEventNamespaceWithContext instead.
func (c *events) CreateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	return c.CreateWithEventNamespaceWithContext(context.Background(), event)
}

// CreateWithEventNamespaceWithContext creates an event in its own namespace.
func (c *events) CreateWithEventNamespaceWithContext(ctx context.Context, event *corev1.Event) (*corev1.Event, error) {
	target := c.of(event)
	if target == nil {
		return c.remoteEvents.CreateWithEventNamespaceWithContext(ctx, event)
	}
	return target.Create(ctx, event, metav1.CreateOptions{})
}

// UpdateWithEventNamespace replaces an event in its own namespace.
//
// Deprecated: use UpdateWithEventNamespaceWithContext instead.
func (c *events) UpdateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	return c.UpdateWithEventNamespaceWithContext(context.Background(), event)
}

// UpdateWithEventNamespaceWithContext replaces an event in its own namespace.
func (c *events) UpdateWithEventNamespaceWithContext(ctx context.Context, event *corev1.Event) (*corev1.Event, error) {
	target := c.of(event)
	if target == nil {
		return c.remoteEvents.UpdateWithEventNamespaceWithContext(ctx, event)
	}
	return target.Update(ctx, event, metav1.UpdateOptions{})
}

// PatchWithEventNamespace applies a strategic merge patch to an event in its own namespace.
//
// Deprecated: use PatchWithEventNamespaceWithContext instead.
func (c *events) PatchWithEventNamespace(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return c.PatchWithEventNamespaceWithContext(context.Background(), event, data)
}

// PatchWithEventNamespaceWithContext applies a strategic merge patch to an event in its own namespace.
func (c *events) PatchWithEventNamespaceWithContext(ctx context.Context, event *corev1.Event, data []byte) (*corev1.Event, error) {
	target := c.of(event)
	if target == nil {
		return c.remoteEvents.PatchWithEventNamespaceWithContext(ctx, event, data)
	}
	return target.Patch(ctx, event.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}
