package eviction

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	upstream "k8s.io/kubernetes/pkg/kubelet/eviction"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
)

// Policy says when pods are evicted, in the terms of KubeletConfiguration's
// eviction… fields: maps from signals such as memory.available to a quantity, a
// percentage or a duration.
type Policy struct {
	// Hard thresholds end pods at once; nil stands for DefaultHard, an empty map
	// for none.
	Hard map[string]string
	// Soft thresholds end pods once they have been met for SoftGracePeriod, which
	// must be given for each.
	Soft, SoftGracePeriod map[string]string
	// MinimumReclaim is what must be free beyond a threshold, once it was met.
	MinimumReclaim map[string]string
	// PressureTransitionPeriod is how long a pressure is told after it was last seen.
	PressureTransitionPeriod time.Duration
	// MaxPodGracePeriod is the most in seconds that pods get to end in, when a soft
	// threshold was met.
	MaxPodGracePeriod int64
}

// DefaultPressureTransitionPeriod is the kubelet's.
const DefaultPressureTransitionPeriod = 5 * time.Minute

// MostKeptFree is what the thresholds on disks are at most unless configured, in
// bytes: a terabyte that is 95 % full still has room.
const MostKeptFree = 10 << 30

// DefaultHard are the hard thresholds where none are configured: the kubelet's,
// those on disks being no more than MostKeptFree, and a twentieth of all process
// IDs, without which nothing could be done about anything.
func DefaultHard(now Reading) map[string]string {
	hard := maps.Clone(upstream.DefaultEvictionHard)
	hard[string(evictionapi.SignalPIDAvailable)] = "5%"
	for signal, capacity := range map[evictionapi.Signal]int64{
		evictionapi.SignalNodeFsAvailable: now.NodeFS.Capacity, evictionapi.SignalImageFsAvailable: now.ImageFS.Capacity,
	} {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(hard[string(signal)], "%"), 64)
		if err == nil && float64(capacity)*percent/100 > MostKeptFree {
			hard[string(signal)] = resource.NewQuantity(MostKeptFree, resource.BinarySI).String()
		}
	}
	return hard
}

// Validate tells everything that is wrong with the policy at once.
func (p Policy) Validate() error {
	var errs []error
	check := func(flag string, hard, soft, grace, reclaim map[string]string) {
		if _, err := upstream.ParseThresholdConfig(nil, hard, soft, grace, reclaim); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	check("eviction-hard", p.Hard, nil, nil, nil)
	check("eviction-soft-grace-period", nil, nil, p.SoftGracePeriod, nil)
	check("eviction-minimum-reclaim", nil, nil, nil, p.MinimumReclaim)
	if len(errs) == 0 {
		check("eviction-soft", nil, p.Soft, p.SoftGracePeriod, nil)
	}
	for flag, thresholds := range map[string]map[string]string{
		"eviction-hard": p.Hard, "eviction-soft": p.Soft, "eviction-minimum-reclaim": p.MinimumReclaim,
	} {
		for signal := range thresholds {
			if instead := insteadOf[evictionapi.Signal(signal)]; instead != "" {
				errs = append(errs, fmt.Errorf("--%s: %s is not supported: %s", flag, signal, instead))
			}
		}
	}
	if p.PressureTransitionPeriod < 0 {
		errs = append(errs, fmt.Errorf("--eviction-pressure-transition-period %s: must not be negative", p.PressureTransitionPeriod))
	}
	if p.MaxPodGracePeriod < 0 {
		errs = append(errs, fmt.Errorf("--eviction-max-pod-grace-period %d: must not be negative", p.MaxPodGracePeriod))
	}
	return errors.Join(errs...)
}

// insteadOf is what to use in place of signals that the kubelet has and we don't.
var insteadOf = map[evictionapi.Signal]string{
	evictionapi.SignalAllocatableMemoryAvailable: "use memory.available",
	evictionapi.SignalContainerFsAvailable:       "containers write where images are, so use imagefs.available",
	evictionapi.SignalContainerFsInodesFree:      "containers write where images are, so use imagefs.inodesFree",
}

// thresholds are the policy's, as upstream has them.
func (p Policy) thresholds(now Reading) ([]evictionapi.Threshold, error) {
	hard := p.Hard
	if hard == nil {
		hard = DefaultHard(now)
	}
	return upstream.ParseThresholdConfig(nil, hard, p.Soft, p.SoftGracePeriod, p.MinimumReclaim)
}
