package imagegc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says when images are removed and which, in the terms of
// KubeletConfiguration's imageGC… fields.
type Policy struct {
	// HighPercent is the use of the disk, in percent, from which on unused
	// images are removed until it is LowPercent.
	HighPercent, LowPercent int
	// MinAge is how long an image has been here before it is removed to make room.
	MinAge time.Duration
	// MaxAge is how long an image may be unused whatever the disk's use; 0 means
	// for ever.
	MaxAge time.Duration
}

// DefaultPolicy is the kubelet's.
func DefaultPolicy() Policy {
	return Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}
}

// Validate tells everything that is wrong with the policy at once.
func (p Policy) Validate() error {
	var errs []error
	for name, percent := range map[string]int{"high": p.HighPercent, "low": p.LowPercent} {
		if percent < 0 || percent > 100 {
			errs = append(errs, fmt.Errorf("--image-gc-%s-threshold-percent %d: must be 0 to 100", name, percent))
		}
	}
	if p.LowPercent >= p.HighPercent {
		errs = append(errs, fmt.Errorf("--image-gc-low-threshold-percent %d: must be below --image-gc-high-threshold-percent (%d)", p.LowPercent, p.HighPercent))
	}
	if p.MinAge < 0 {
		errs = append(errs, fmt.Errorf("--image-minimum-gc-age %s: must not be negative", p.MinAge))
	}
	if p.MaxAge < 0 || p.MaxAge > 0 && p.MaxAge <= p.MinAge {
		errs = append(errs, fmt.Errorf("--image-maximum-gc-age %s: must be 0, or more than --image-minimum-gc-age (%s)", p.MaxAge, p.MinAge))
	}
	return errors.Join(errs...)
}

// never says that the policy removes nothing, ever.
func (p Policy) never() bool { return p.HighPercent == 100 && p.MaxAge == 0 }

// Disk is the state of the file system that images are on, in bytes.
type Disk struct{ Capacity, Available int64 }

// percent is how much of the disk is used, rounded up as the kubelet does.
func (d Disk) percent() int { return 100 - int(min(d.Available, d.Capacity)*100/d.Capacity) }

// excess is how many bytes must be freed: 0 below the high threshold.
func (p Policy) excess(d Disk) int64 {
	if d.percent() < p.HighPercent {
		return 0
	}
	return max(0, d.Capacity*int64(100-p.LowPercent)/100-d.Available)
}

// formatSize writes bytes as the kubelet's events do.
func formatSize(bytes int64) string {
	if bytes < 1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}
	size, unit := float64(bytes)/(1<<10), 0
	for ; size >= 1<<10 && unit < 3; unit++ {
		size /= 1 << 10
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[unit])
}

// image is one of which is known when it was seen and used.
type image struct {
	id        string
	size      int64 // bytes as it was fetched
	firstSeen time.Time
	lastUsed  time.Time // zero: not since errand's start
	kept      bool      // in use, or pinned
}

// aged returns the images that have been unused for too long. What was before
// began isn't known, so that nobody is too old before that is as long ago.
func (p Policy) aged(images []image, began, now time.Time) []image {
	if p.MaxAge == 0 || now.Sub(began) <= p.MaxAge {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(images), func(i image) bool {
		return i.kept || now.Sub(i.lastUsed) <= p.MaxAge || now.Sub(i.firstSeen) <= p.MaxAge
	})
}

// removable returns the images that may be removed to make room, those first
// whose use is longest ago.
func (p Policy) removable(images []image, now time.Time) []image {
	out := slices.DeleteFunc(slices.Clone(images), func(i image) bool { return i.kept || now.Sub(i.firstSeen) < p.MinAge })
	slices.SortFunc(out, func(a, b image) int {
		return cmp.Or(a.lastUsed.Compare(b.lastUsed), a.firstSeen.Compare(b.firstSeen), cmp.Compare(a.id, b.id))
	})
	return out
}
