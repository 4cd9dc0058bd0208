package inprocess

import (
	"k8s.io/client-go/kubernetes"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	typedeventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
)

// clientset is the fallback clientset with the group versions replaced that have resources served in-process.
type clientset struct {
	kubernetes.Interface
	core         *coreV1
	batch        *batchV1
	coordination *coordinationV1
	events       *eventsV1
}

var _ kubernetes.Interface = &clientset{}

func newClientset(b *backend, fallback kubernetes.Interface) (*clientset, error) {
	c := &clientset{Interface: fallback}
	var err error
	if c.core, err = newCoreV1(b, fallback.CoreV1()); err != nil {
		return nil, err
	}
	if c.batch, err = newBatchV1(b, fallback.BatchV1()); err != nil {
		return nil, err
	}
	if c.coordination, err = newCoordinationV1(b, fallback.CoordinationV1()); err != nil {
		return nil, err
	}
	if c.events, err = newEventsV1(b, fallback.EventsV1()); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *clientset) CoreV1() typedcorev1.CoreV1Interface    { return c.core }
func (c *clientset) BatchV1() typedbatchv1.BatchV1Interface { return c.batch }
func (c *clientset) CoordinationV1() typedcoordinationv1.CoordinationV1Interface {
	return c.coordination
}
func (c *clientset) EventsV1() typedeventsv1.EventsV1Interface { return c.events }
