package images

import (
	"context"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
)

// resourceRootfs is the collector's number for containers' roots.
const resourceRootfs = metadata.ResourceMount + 1

// StartCollection implements metadata.Collector. From here until the collector has decided and written what goes, no container can
// claim layers: either its claim is seen by the collector, or the layers are gone by the time it looks for them.
func (k *rootfsKeeper) StartCollection(context.Context) (metadata.CollectionContext, error) {
	k.mu.Lock()
	clear(k.layers)
	return collection{k}, nil
}

// ReferenceLabel implements metadata.Collector: nothing in the database refers to a container's root.
func (k *rootfsKeeper) ReferenceLabel() string { return "" }

// collection is one run of the collector, with rootfsKeeper.mu held.
type collection struct{ k *rootfsKeeper }

// Active tells the collector which layers containers need.
func (c collection) Active(ns string, fn func(gc.Node)) {
	if ns != namespace {
		return
	}
	needed := func(chain string) {
		fn(gc.Node{Type: metadata.ResourceSnapshot, Namespace: ns, Key: c.k.backend.snapshotKey(chain)})
	}
	for _, below := range c.k.users {
		needed(below.chain)
	}
	for _, chains := range c.k.volumes {
		for _, chain := range chains {
			needed(chain)
		}
	}
}

func (collection) All(func(gc.Node))                    {}
func (collection) Leased(string, string, func(gc.Node)) {}
func (collection) Remove(gc.Node)                       {}

func (c collection) Cancel() error { c.k.mu.Unlock(); return nil }
func (c collection) Finish() error { c.k.mu.Unlock(); return nil }
