package binder

import (
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/podtrace/apipod"
)

// watch keeps state and queue up to date with the API server.
func (b *Binder) watch() error {
	core := b.cfg.Informers.Core().V1()
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Nodes().Informer(), handle(b.nodeChanged, b.nodeGone)},
		{core.Namespaces().Informer(), handle(b.namespaceChanged, b.namespaceGone)},
		{core.Pods().Informer(), handle(b.podChanged, b.podGone)},
		{core.PersistentVolumeClaims().Informer(), handle(b.claimChanged, b.claimChanged)},
		{core.PersistentVolumes().Informer(), handle(b.volumeChanged, b.volumeChanged)},
		{b.cfg.Informers.Storage().V1().StorageClasses().Informer(), handle(b.storageClassChanged, b.storageClassChanged)},
	} {
		registration, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		b.synced = append(b.synced, registration.HasSynced)
	}
	b.synced = append(b.synced, b.cfg.Informers.Policy().V1().PodDisruptionBudgets().Informer().HasSynced)
	return nil
}

// handle is a handler for objects of one type, to which adding and updating
// are the same. An update may be to another object of the same name, if the watch
// was cut off when the old one was deleted.
func handle[T metav1.Object](set, gone func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(T); ok {
				set(o)
			}
		},
		UpdateFunc: func(before, obj any) {
			o, ok := obj.(T)
			if !ok {
				return
			}
			if old, ok := before.(T); ok && old.GetUID() != o.GetUID() {
				gone(old)
			}
			set(o)
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if o, ok := obj.(T); ok {
				gone(o)
			}
		},
	}
}

// happened lets waiting pods try again that the event may help. b.mu must be held.
func (b *Binder) happened(e event) {
	b.queue.happened(e)
	b.signal()
}

func (b *Binder) nodeChanged(node *v1.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.setNode(node) {
		b.happened(nodeChanged)
	}
}

func (b *Binder) nodeGone(node *v1.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.removeNode(node.Name)
	b.happened(nodeChanged) // topology rules may be met by what is left
}

func (b *Binder) namespaceChanged(ns *v1.Namespace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.state.namespaces[ns.Name]
	b.state.namespaces[ns.Name] = labels.Set(ns.Labels)
	if !known || !maps.Equal(old, labels.Set(ns.Labels)) {
		b.happened(namespaceChanged)
	}
}

func (b *Binder) namespaceGone(ns *v1.Namespace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.state.namespaces, ns.Name)
}

func (b *Binder) podChanged(pod *v1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case podutil.IsPodTerminal(pod):
		b.podLeft(pod)
	case pod.Spec.NodeName != "":
		b.podPlaced(pod)
	case pod.DeletionTimestamp != nil:
		b.podLeft(pod)
	case pod.Spec.SchedulerName == b.cfg.SchedulerName:
		b.podWaits(pod)
	}
}

func (b *Binder) podGone(pod *v1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.podLeft(pod)
}

// podLeft frees what the pod had. b.mu must be held.
func (b *Binder) podLeft(pod *v1.Pod) {
	if w := b.queue.remove(pod.UID); w != nil {
		w.gone()
	}
	_, nominated := b.state.nominated[pod.UID]
	delete(b.state.nominated, pod.UID)
	if b.state.remove(pod.UID) || nominated {
		b.happened(podLeft)
	}
}

// podPlaced counts a pod that has a node. b.mu must be held.
func (b *Binder) podPlaced(pod *v1.Pod) {
	if w := b.queue.remove(pod.UID); w != nil {
		w.placing.End(nil) // by someone else
	}
	delete(b.state.nominated, pod.UID)
	old := b.state.placed[pod.UID]
	if old == nil || old.node != pod.Spec.NodeName {
		b.state.confirm(newPodInfo(pod), pod.Spec.NodeName)
		b.happened(podCame | podLeft) // it left the node it was assumed on, if it was
		return
	}
	came := old.assumed
	freed := !labels.Equals(old.info.pod.Labels, pod.Labels) // to those whom its labels kept away
	if sameRequests(old.info.pod, pod) {
		old.replaceVersion(pod)
	} else {
		b.state.confirm(newPodInfo(pod), pod.Spec.NodeName)
		freed = freed || shrunk(old.info, b.state.placed[pod.UID].info)
	}
	switch {
	case freed:
		b.happened(podLeft | podCame)
	case came:
		b.happened(podCame)
	}
}

// shrunk tells whether an in-place resize has freed something.
func shrunk(old, cur *podInfo) bool {
	return cur.requests.cpu < old.requests.cpu || cur.requests.memory < old.requests.memory
}

// podWaits queues a pod without a node, or notes what has changed on it. b.mu
// must be held.
func (b *Binder) podWaits(pod *v1.Pod) {
	if _, decided := b.state.placed[pod.UID]; decided {
		return // its binding is under way
	}
	info := newPodInfo(pod)
	w, known := b.queue.pods[pod.UID]
	switch {
	case !known:
		w = &waiting{told: toldBefore(pod), trace: b.cfg.Traces.Pod(apipod.Identity(pod))}
		w.placing = w.trace.Start("SchedulePod", "")
		if node := pod.Status.NominatedNodeName; node != "" {
			w.solo = true
			b.state.nominate(info, node) // by an earlier binder
		}
	case sameForScheduling(w.info, info):
		w.pod, w.info = pod, info
		b.state.renominate(info)
		if w.class != nil && w.class.blocked != nil && w.told == "" {
			b.queue.tell(w) // an earlier attempt met a conflict
			b.signal()
		}
		return
	default:
		b.queue.remove(pod.UID)
		w.solo = b.state.renominate(info)
	}
	w.pod, w.info = pod, info
	if len(pod.Spec.SchedulingGates) > 0 {
		b.queue.hold(w)
		return
	}
	b.queue.add(w)
	b.signal()
}

// toldBefore is what an earlier binder has written on the pod.
func toldBefore(pod *v1.Pod) string {
	_, c := podutil.GetPodCondition(&pod.Status, v1.PodScheduled)
	if c == nil || c.Reason != v1.PodReasonUnschedulable {
		return ""
	}
	return c.Message
}
