package server

import (
	"context"

	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"

	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/node/imagegc"
	"errand.dev/errand/internal/node/imagepull"
)

// openPullRecords opens the records of which pods may have which image.
func (s *serve) openPullRecords(ctx context.Context) (pullmanager.ImagePullManager, error) {
	return imagepull.OpenRecords(ctx, imagepull.RecordsConfig{
		Dir:          s.dir.Root(),
		Verification: s.options.ImagePullCredentialsVerificationPolicy,
		Allowlist:    s.options.PreloadedImagesVerificationAllowlist,
		Images:       s.runtime.Images(),
		MaxPods:      s.options.MaxPods,
	})
}

// recordedCommands has the records of an image go with it: loaded again from an
// archive, it is the administrator's and everybody's.
type recordedCommands struct {
	control.Images
	collector *imagegc.Collector
}

// Remove implements control.Images.
func (c recordedCommands) Remove(ctx context.Context, ref string) error {
	if err := c.Images.Remove(ctx, ref); err != nil {
		return err
	}
	if err := c.collector.Prune(ctx); err != nil {
		// The image is gone, which is what was asked for.
		klog.FromContext(ctx).Error(err, "Records of an image that was removed stay for now", "image", ref)
	}
	return nil
}
