package localvolumes

import (
	"context"
	"fmt"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
)

// Finalizers keeps the finalizer that holds a PersistentVolume until its
// directory is removed (KEP-2644) in step with its reclaim policy: there with
// Delete, not with Retain, where nothing would ever take it off. Upstream's
// controller puts it there, and does the rest only for plugins whose names begin
// with kubernetes.io.
type Finalizers struct {
	client  kubernetes.Interface
	volumes coreinformers.PersistentVolumeInformer
	queue   workqueue.TypedRateLimitingInterface[string]
}

// NewFinalizers returns one that watches volumes; their owner starts the
// informer. It fails if that can't be watched.
func NewFinalizers(client kubernetes.Interface, volumes coreinformers.PersistentVolumeInformer) (*Finalizers, error) {
	f := &Finalizers{
		client: client, volumes: volumes,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	_, err := volumes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    f.changed,
		UpdateFunc: func(_, obj any) { f.changed(obj) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch PersistentVolumes: %w", err)
	}
	return f, nil
}

func (f *Finalizers) changed(obj any) {
	if pv, ok := obj.(*v1.PersistentVolume); ok && corrected(pv) != nil {
		f.queue.Add(pv.Name)
	}
}

// Run works until ctx ends.
func (f *Finalizers) Run(ctx context.Context) {
	var worker sync.WaitGroup
	defer worker.Wait()
	defer f.queue.ShutDown()
	worker.Go(func() {
		for f.next(ctx) {
		}
	})
	<-ctx.Done()
}

func (f *Finalizers) next(ctx context.Context) bool {
	name, ended := f.queue.Get()
	if ended {
		return false
	}
	defer f.queue.Done(name)
	if err := f.correct(ctx, name); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Could not set a PersistentVolume's finalizer; will try again", "volume", name)
		f.queue.AddRateLimited(name)
		return true
	}
	f.queue.Forget(name)
	return true
}

func (f *Finalizers) correct(ctx context.Context, name string) error {
	pv, err := f.volumes.Lister().Get(name)
	if err != nil {
		return ignoreGone(err)
	}
	better := corrected(pv)
	if better == nil {
		return nil
	}
	_, err = f.client.CoreV1().PersistentVolumes().Update(ctx, better, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // the newer version brings us here again
	}
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// corrected is a volume of this provisioner's with the finalizers that its
// reclaim policy asks for, or nil if it has those, or is another's. One that is
// being deleted can't get more.
func corrected(pv *v1.PersistentVolume) *v1.PersistentVolume {
	const own = storagehelpers.PVDeletionInTreeProtectionFinalizer
	if pv.Annotations[storagehelpers.AnnDynamicallyProvisioned] != Provisioner {
		return nil
	}
	has := slices.Contains(pv.Finalizers, own)
	wants := pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete
	switch {
	case has && !wants:
		pv = pv.DeepCopy()
		pv.Finalizers = slices.DeleteFunc(pv.Finalizers, func(f string) bool { return f == own })
		return pv
	case wants && !has && pv.DeletionTimestamp == nil:
		pv = pv.DeepCopy()
		pv.Finalizers = append(pv.Finalizers, own)
		return pv
	}
	return nil
}
