package registration

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/apimachinery/lease"
)

// leaseSeconds is how long the lease lasts: four renewals.
const leaseSeconds = 40

// watchNode has the Node checked at once when somebody deletes it or changes
// what we answer for.
func (r *Registration) watchNode() error {
	_, err := r.cfg.Nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, cur any) {
			a, ok := old.(*v1.Node)
			b, ok2 := cur.(*v1.Node)
			if ok && ok2 && b.Name == r.cfg.NodeName && !(sameSpec(a, b) && sameExtended(a, b)) {
				r.Recheck()
			}
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if n, ok := obj.(*v1.Node); ok && n.Name == r.cfg.NodeName {
				r.Recheck()
			}
		},
	})
	return err
}

// sameExtended compares what others write in the status, of which the rest follows.
func sameExtended(a, b *v1.Node) bool {
	return equality.Semantic.DeepEqual(extended(a.Status.Capacity), extended(b.Status.Capacity))
}

// renewLease renews the Node's lease until ctx ends.
func (r *Registration) renewLease(ctx context.Context) {
	controller := lease.NewController(r.cfg.Clock, r.cfg.Client, r.cfg.NodeName, leaseSeconds, nil, CheckInterval,
		r.cfg.NodeName, v1.NamespaceNodeLease, r.ownLease(ctx))
	controller.Run(ctx)
}

// ownLease makes the Node the lease's owner, so that it goes when the Node goes.
// A Node that is missing is about to come back: the lease is renewed meanwhile.
func (r *Registration) ownLease(ctx context.Context) lease.ProcessLeaseFunc {
	return func(l *coordinationv1.Lease) error {
		if len(l.OwnerReferences) > 0 {
			return nil
		}
		node, err := r.cfg.Client.CoreV1().Nodes().Get(ctx, r.cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
		}}
		return nil
	}
}
