package controllers

import (
	"context"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/volume/ephemeral"
	"k8s.io/kubernetes/pkg/controller/volume/persistentvolume"
	"k8s.io/kubernetes/pkg/controller/volume/pvcprotection"
	"k8s.io/kubernetes/pkg/controller/volume/pvprotection"
	"k8s.io/kubernetes/pkg/volume"

	"errand.dev/errand/internal/localvolumes"
)

const (
	// volumeResync is upstream's default. By it, and by nothing else, the
	// controller retries what failed and gives a claim that waits the volume
	// that somebody made later. Where there are no volumes it does nothing.
	volumeResync      = 15 * time.Second
	ephemeralWorkers  = 2
	protectionWorkers = 1
)

// persistentVolumes binds claims to volumes. Its plugins are upstream's way to
// make and remove them: there is one, or none without a node.
func persistentVolumes(ctx context.Context, d *dependencies) (func(context.Context), error) {
	var plugins []volume.VolumePlugin
	prepare := func(context.Context) {}
	if d.VolumesDir != "" {
		local, err := localvolumes.New(d.VolumesDir)
		if err != nil {
			return nil, err
		}
		plugins = append(plugins, local)
		prepare = func(ctx context.Context) { sweepVolumes(ctx, d, local) }
	}
	core := d.Informers.Core().V1()
	c, err := persistentvolume.NewController(ctx, persistentvolume.ControllerParameters{
		KubeClient:                d.client,
		SyncPeriod:                volumeResync,
		VolumePlugins:             plugins,
		VolumeInformer:            core.PersistentVolumes(),
		ClaimInformer:             core.PersistentVolumeClaims(),
		ClassInformer:             d.Informers.Storage().V1().StorageClasses(),
		PodInformer:               core.Pods(),
		NodeInformer:              core.Nodes(),
		EnableDynamicProvisioning: true,
	})
	if err != nil {
		return nil, err
	}
	finalizers, err := localvolumes.NewFinalizers(d.client, core.PersistentVolumes())
	if err != nil {
		return nil, err
	}
	return both(
		func(ctx context.Context) { prepare(ctx); c.Run(ctx) },
		finalizers.Run,
	), nil
}

// sweepVolumes clears away what a crash has left, before anything new is made.
func sweepVolumes(ctx context.Context, d *dependencies, local *localvolumes.Plugin) {
	volumes := d.Informers.Core().V1().PersistentVolumes()
	if !cache.WaitForCacheSync(ctx.Done(), volumes.Informer().HasSynced) {
		return
	}
	known := func(name string) bool {
		_, err := volumes.Lister().Get(name)
		return err == nil
	}
	if err := local.Sweep(known); err != nil {
		klog.FromContext(ctx).Error(err, "Something is left of volumes that are gone", "dir", d.VolumesDir)
	}
}

func claimProtection(ctx context.Context, d *dependencies) (func(context.Context), error) {
	core := d.Informers.Core().V1()
	c, err := pvcprotection.NewPVCProtectionController(klog.FromContext(ctx), core.PersistentVolumeClaims(), core.Pods(), d.client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, protectionWorkers) }, nil
}

func volumeProtection(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := pvprotection.NewPVProtectionController(klog.FromContext(ctx), d.Informers.Core().V1().PersistentVolumes(), d.client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, protectionWorkers) }, nil
}

// ephemeralVolumes makes the claims of pods' ephemeral volumes.
func ephemeralVolumes(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := ephemeral.NewController(ctx, d.client, d.Informers.Core().V1().Pods(), d.Informers.Core().V1().PersistentVolumeClaims())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, ephemeralWorkers) }, nil
}
