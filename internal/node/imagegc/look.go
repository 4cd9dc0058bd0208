package imagegc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// look lists all images with what is known of them, and forgets those that are
// gone.
func (c *Collector) look(ctx context.Context) ([]image, error) {
	list, err := c.cfg.Images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	needed, err := c.needed(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Clock.Now()
	present := map[string]bool{}
	images := make([]image, 0, len(list))
	for _, i := range list {
		present[i.GetId()] = true
		if _, ok := c.seen[i.GetId()]; !ok {
			c.seen[i.GetId()] = now
		}
		if needed[i.GetId()] {
			c.used[i.GetId()] = now
		}
		images = append(images, image{
			id: i.GetId(), size: int64(i.GetSize()), firstSeen: c.seen[i.GetId()], lastUsed: c.used[i.GetId()],
			kept: needed[i.GetId()] || i.GetPinned(),
		})
	}
	for id := range c.seen {
		if !present[id] {
			delete(c.seen, id)
			delete(c.used, id)
		}
	}
	return images, nil
}

// Prune has the records forget images that are gone. An image that comes back
// by other means than a pod's pull has no history.
func (c *Collector) Prune(ctx context.Context) error {
	if c.cfg.Records == nil {
		return nil
	}
	asOf := time.Now().Truncate(time.Second) // as exact as the records, whose time is the machine's
	list, err := c.cfg.Images.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	ids := make([]string, 0, len(list))
	for _, i := range list {
		ids = append(ids, i.GetId())
	}
	c.cfg.Records.PruneUnknownRecords(ctx, ids, asOf)
	return nil
}

// needed are the images of all containers, also those that have ended, and of
// the pods that may make containers yet.
func (c *Collector) needed(ctx context.Context) (map[string]bool, error) {
	containers, err := c.cfg.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	needed, names := map[string]bool{}, map[string]bool{}
	for _, container := range containers {
		if id := container.GetImageId(); id != "" {
			needed[id] = true
		} else {
			names[container.GetImageRef()] = true // the CRI before 1.30 has no more
		}
	}
	for _, pod := range c.cfg.Pods() {
		if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
			continue
		}
		for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			names[container.Image] = true
		}
		for _, container := range pod.Spec.EphemeralContainers {
			names[container.Image] = true
		}
		for _, volume := range pod.Spec.Volumes {
			if volume.Image != nil {
				names[volume.Image.Reference] = true
			}
		}
	}
	for name := range names {
		id, err := c.id(ctx, name)
		if err != nil {
			return nil, err
		}
		needed[id] = true
	}
	delete(needed, "") // not here, or not pulled yet
	return needed, nil
}

// id is the ID of the image with a name, "" if there is none, as of a name that
// no image can have. Runtimes have no code in common for such a name: to CRI-O a
// short one is that may mean several images. It must not keep all others' images on
// the disk; an error is what holds for every name.
func (c *Collector) id(ctx context.Context, name string) (string, error) {
	resp, err := c.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
	switch status.Code(err) {
	case codes.OK:
		return resp.GetImage().GetId(), nil
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return "", fmt.Errorf("find image %s: %w", name, err)
	default:
		klog.FromContext(ctx).V(2).Info("No image is kept for a name that the runtime refuses", "image", name, "err", err)
		return "", nil
	}
}

// without returns the images that aren't among others.
func without(images, others []image) []image {
	return slices.DeleteFunc(images, func(i image) bool {
		return slices.ContainsFunc(others, func(o image) bool { return o.id == i.id })
	})
}
