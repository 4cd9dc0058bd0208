package controllers

import (
	"context"
	"fmt"

	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/tainteviction"
)

// taintEvictor is the component that events of such evictions name, as in a cluster.
const taintEvictor = "taint-eviction-controller"

// taintEvictions deletes the pods that don't tolerate their node's taints of the
// effect NoExecute, or no longer. errand sets none of them itself. Nor does
// Kubernetes, for a node that isn't ready, where there is no other that is.
func taintEvictions(ctx context.Context, d *dependencies) (func(context.Context), error) {
	core := d.Informers.Core().V1()
	// In a cluster the node lifecycle controller adds the index that it counts on.
	if err := controller.AddPodNodeNameIndexer(core.Pods().Informer()); err != nil {
		return nil, fmt.Errorf("index pods by their nodes: %w", err)
	}
	c, err := tainteviction.New(ctx, d.client, core.Pods(), core.Nodes(), taintEvictor)
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}
