// Package imagegc removes images that no pod needs when the disk is nearly full,
// as the kubelet does.
//
// It owns the decision which, and when: after a pull, after a pod has gone, and
// every few minutes, since others fill the disk without saying so. It doesn't own
// the store, whose image service removes an image with what only it needs. As long
// as the disk has room a look costs one system call.
package imagegc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// period is how often the disk is looked at without an occasion: the kubelet's.
	period = 5 * time.Minute
	// respite is how long after a failure no occasion leads to another try: each
	// reads all images and containers.
	respite = time.Minute
)

// Config is what a Collector needs; all of it but Containers, Records and Clock.
type Config struct {
	Policy  Policy
	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	// Containers lists all that may use an image; default all of Runtime's. A
	// runtime may have others than this node's.
	Containers func(ctx context.Context) ([]*runtimeapi.Container, error)
	// Pods are those of this node, whose images stay even before they have
	// containers.
	Pods func() []*v1.Pod
	// Disk reads the state of the file system that images are on.
	Disk func() (Disk, error)
	// Records, if set, are told which images are left, so that they forget the others.
	Records interface {
		PruneUnknownRecords(ctx context.Context, imageIDs []string, asOf time.Time)
	}
	// Recorder and NodeName are for events about the Node.
	Recorder record.EventRecorder
	NodeName string
	Clock    clock.WithTicker
}

// Collector removes images. Its services are to be used in the place of those it
// was given: it learns from them what is used, and when.
type Collector struct {
	cfg    Config
	began  time.Time
	wake   chan struct{}
	failed struct {
		times int // in a row
		last  time.Time
	}

	mu   sync.Mutex
	seen map[string]time.Time // image ID → when it came, or was first found
	used map[string]time.Time // image ID → when a container was last made of it
}

// New makes a Collector.
func New(cfg Config) (*Collector, error) {
	if cfg.Runtime == nil || cfg.Images == nil || cfg.Pods == nil || cfg.Disk == nil || cfg.Recorder == nil || cfg.NodeName == "" {
		return nil, errors.New("imagegc: a field of Config isn't set")
	}
	if cfg.Containers == nil {
		cfg.Containers = func(ctx context.Context) ([]*runtimeapi.Container, error) {
			return cfg.Runtime.ListContainers(ctx, nil)
		}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Collector{
		cfg: cfg, began: cfg.Clock.Now(), wake: make(chan struct{}, 1),
		seen: map[string]time.Time{}, used: map[string]time.Time{},
	}, cfg.Policy.Validate()
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	// Images age from here on, and some may have gone while nobody was here.
	c.prune(ctx)
	if _, err := c.look(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list images yet")
	}
	ticker := c.cfg.Clock.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			c.prune(ctx)
		case <-c.wake:
			if c.failed.times > 0 && c.cfg.Clock.Since(c.failed.last) < respite {
				continue
			}
		}
		if !c.cfg.Policy.never() {
			c.note(ctx, c.collect(ctx))
		}
	}
}

func (c *Collector) prune(ctx context.Context) {
	if err := c.Prune(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Records of images that are gone stay for now")
	}
}

// note tells of failures, by an event if it isn't the first in a row, as the
// kubelet does.
func (c *Collector) note(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		c.failed.times = 0
		return
	}
	c.failed.times++
	c.failed.last = c.cfg.Clock.Now()
	klog.FromContext(ctx).Error(err, "Unused images aren't collected", "times", c.failed.times)
	if c.failed.times > 1 {
		c.event("ImageGCFailed", err.Error())
	}
}

func (c *Collector) event(reason, message string) {
	node := &v1.ObjectReference{Kind: "Node", Name: c.cfg.NodeName, UID: types.UID(c.cfg.NodeName)}
	c.cfg.Recorder.Event(node, v1.EventTypeWarning, reason, message)
}

// collect removes what the policy says.
func (c *Collector) collect(ctx context.Context) error {
	disk, err := c.disk()
	if err != nil || c.cfg.Policy.MaxAge == 0 && c.cfg.Policy.excess(disk) == 0 {
		return err
	}
	images, err := c.look(ctx)
	if err != nil {
		return err
	}
	now := c.cfg.Clock.Now()
	old := c.cfg.Policy.aged(images, c.began, now)
	if err := c.remove(ctx, old, func(int64) bool { return false }); err != nil {
		return fmt.Errorf("remove images unused for %s: %w", c.cfg.Policy.MaxAge, err)
	}
	if disk, err = c.disk(); err != nil || c.cfg.Policy.excess(disk) == 0 {
		return err
	}
	return c.makeRoom(ctx, disk, without(c.cfg.Policy.removable(images, now), old))
}

// DeleteUnusedImages removes all images that no pod needs and that are of the
// least age, whatever the disk's use: somebody knows that there must be room.
func (c *Collector) DeleteUnusedImages(ctx context.Context) error {
	images, err := c.look(ctx)
	if err != nil {
		return err
	}
	return c.remove(ctx, c.cfg.Policy.removable(images, c.cfg.Clock.Now()), func(int64) bool { return false })
}

// makeRoom removes images, in their order, until the disk has room again.
func (c *Collector) makeRoom(ctx context.Context, before Disk, images []image) error {
	excess, freed := c.cfg.Policy.excess(before), int64(0)
	klog.FromContext(ctx).Info("The disk is nearly full: removing unused images", "percent", before.percent(), "bytesToFree", excess)
	err := c.remove(ctx, images, func(sizes int64) bool {
		// Some file systems free in the background; a fetched image's size is the
		// least that it takes.
		freed = sizes
		if disk, err := c.cfg.Disk(); err == nil {
			freed = max(freed, disk.Available-before.Available)
		}
		return freed >= excess
	})
	if err != nil {
		return fmt.Errorf("wanted to free %d bytes, but freed %d bytes space with errors in image deletion: %w", excess, freed, err)
	}
	if freed >= excess {
		return nil
	}
	message := fmt.Sprintf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+
		"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
		"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
		before.percent(), formatSize(before.Capacity), freed)
	c.event("FreeDiskSpaceFailed", message)
	return errors.New(message)
}

// remove removes images until enough says so, which is told the sum of their
// sizes. One that can't be removed doesn't keep it from the others.
func (c *Collector) remove(ctx context.Context, images []image, enough func(sizes int64) bool) error {
	var errs []error
	var sizes int64
	for _, i := range images {
		if err := c.cfg.Images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.id}); err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", i.id, err))
			continue
		}
		klog.FromContext(ctx).V(2).Info("Removed an unused image", "image", i.id, "lastUsed", i.lastUsed)
		if sizes += i.size; enough(sizes) {
			break
		}
	}
	return errors.Join(errs...)
}

func (c *Collector) disk() (Disk, error) {
	disk, err := c.cfg.Disk()
	if err == nil && disk.Capacity <= 0 {
		err = errors.New("invalid capacity 0 on image filesystem")
		c.event("InvalidDiskCapacity", err.Error())
	}
	return disk, err
}
