package cri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/images"
)

// cpuSample is the CPU usage at the last look, from which the next one tells
// the rate.
type cpuSample struct {
	at    time.Time
	nanos uint64
	rate  uint64 // nanocores
}

// minSample is the shortest time over which a rate means something.
const minSample = 100 * time.Millisecond

func (p *cpuSample) next(at time.Time, nanos uint64) uint64 {
	if p.at.IsZero() || nanos < p.nanos {
		p.at, p.nanos = at, nanos
		return 0
	}
	if d := at.Sub(p.at); d >= minSample {
		p.rate = uint64(float64(nanos-p.nanos) / d.Seconds())
		p.at, p.nanos = at, nanos
	}
	return p.rate
}

// layerSample is what a container's writable layer was found to hold. Finding out
// walks all its files. For those who only ask for CPU and memory the CRI has no
// other call, so that a layer that took long isn't walked again at once: however
// often somebody asks, at most a tenth of the time goes into it.
type layerSample struct {
	usage images.Usage
	at    time.Time
	until time.Time // after which it is too old
}

// layerRest is how many times as long as it took a layer isn't walked again.
const layerRest = 9

func (s *Service) layerUsage(ctx context.Context, c *container) (layerSample, error) {
	began := s.cfg.Clock.Now()
	c.mu.Lock()
	known := c.layer
	c.mu.Unlock()
	if began.Before(known.until) {
		return known, nil
	}
	usage, err := s.cfg.Images.RootfsUsage(ctx, c.id)
	if err != nil {
		return layerSample{}, err
	}
	now := s.cfg.Clock.Now()
	found := layerSample{usage: usage, at: now, until: now.Add(layerRest * now.Sub(began))}
	c.mu.Lock()
	c.layer = found
	c.mu.Unlock()
	return found, nil
}

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

// ContainerStats returns the container's usage; of one that doesn't run only
// that of its writable layer. Code: NotFound.
func (s *Service) ContainerStats(ctx context.Context, id string) (*runtimeapi.ContainerStats, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, toStatus(err)
	}
	stats, err := s.containerStats(ctx, c, true)
	return stats, toStatus(err)
}

func (s *Service) containerStats(ctx context.Context, c *container, layer bool) (*runtimeapi.ContainerStats, error) {
	config := c.settings()
	now := s.cfg.Clock.Now()
	out := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{
		Id: c.id, Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
	}}
	used, err := s.cfg.Cgroups.Stats(c.cgroup(s))
	if err == nil {
		c.mu.Lock()
		rate := c.cpu.next(now, used.CPUNanos)
		c.mu.Unlock()
		out.Cpu, out.Memory, out.Io = cpuUsage(now, used, rate), memoryUsage(now, used), ioUsage(now, used)
		out.Swap = &runtimeapi.SwapUsage{Timestamp: now.UnixNano(), SwapUsageBytes: value(used.SwapUsage)}
	} else if !errors.Is(err, cgroups.ErrNotFound) {
		return nil, err
	}
	if !layer {
		return out, nil
	}
	disk, err := s.layerUsage(ctx, c)
	if errdefs.IsNotFound(err) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	out.WritableLayer = &runtimeapi.FilesystemUsage{
		Timestamp: disk.at.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: s.cfg.Root},
		UsedBytes: value(uint64(disk.usage.Bytes)), InodesUsed: value(uint64(disk.usage.Inodes)),
	}
	return out, nil
}

func cpuUsage(now time.Time, s *cgroups.Stats, rate uint64) *runtimeapi.CpuUsage {
	return &runtimeapi.CpuUsage{
		Timestamp: now.UnixNano(), UsageCoreNanoSeconds: value(s.CPUNanos), UsageNanoCores: value(rate), Psi: s.CPUPressure,
	}
}

func memoryUsage(now time.Time, s *cgroups.Stats) *runtimeapi.MemoryUsage {
	m := &runtimeapi.MemoryUsage{
		Timestamp: now.UnixNano(), WorkingSetBytes: value(s.WorkingSet), UsageBytes: value(s.MemoryUsage), RssBytes: value(s.RSS),
		PageFaults: value(s.PageFaults), MajorPageFaults: value(s.MajorFaults), Psi: s.MemoryPressure,
	}
	if s.MemoryLimit > 0 {
		m.AvailableBytes = value(s.MemoryLimit - min(s.WorkingSet, s.MemoryLimit))
	}
	return m
}

func ioUsage(now time.Time, s *cgroups.Stats) *runtimeapi.IoUsage {
	return &runtimeapi.IoUsage{Timestamp: now.UnixNano(), Psi: s.IOPressure}
}

// ListContainerStats returns the usage of the running containers that match.
func (s *Service) ListContainerStats(ctx context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	var out []*runtimeapi.ContainerStats
	for _, c := range s.selected(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector()) {
		if c.state() != containerRunning {
			continue
		}
		stats, err := s.containerStats(ctx, c, true)
		if err != nil {
			return nil, toStatus(err)
		}
		out = append(out, stats)
	}
	return out, nil
}

// PodSandboxStats returns the pod's usage and its running containers'.
func (s *Service) PodSandboxStats(ctx context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	sb, err := s.sandbox(id)
	if err != nil {
		return nil, toStatus(err)
	}
	stats, err := s.sandboxStats(ctx, sb)
	return stats, toStatus(err)
}

func (s *Service) sandboxStats(ctx context.Context, sb *sandbox) (*runtimeapi.PodSandboxStats, error) {
	phase, config := sb.state()
	if phase != sandboxReady {
		return nil, fmt.Errorf("%s is %s: %w", sb.what(), phase, errdefs.ErrFailedPrecondition)
	}
	now := s.cfg.Clock.Now()
	used, err := s.cfg.Cgroups.Stats(s.cgroup(sb))
	if err != nil {
		return nil, err
	}
	sb.mu.Lock()
	rate := sb.cpu.next(now, used.CPUNanos)
	sb.mu.Unlock()
	linux := &runtimeapi.LinuxPodSandboxStats{
		Cpu: cpuUsage(now, used, rate), Memory: memoryUsage(now, used), Io: ioUsage(now, used),
		Process: &runtimeapi.ProcessUsage{Timestamp: now.UnixNano(), ProcessCount: value(used.Processes)},
	}
	if sb.address.IsValid() {
		// A privileged pod may have taken its interface away. The rest is worth telling.
		if linux.Network, err = s.networkUsage(now, sb); err != nil {
			klog.FromContext(ctx).V(2).Info("A pod's network usage can't be read", "sandbox", sb.id, "err", err)
		}
	}
	if linux.Containers, err = s.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{PodSandboxId: sb.id}); err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: sb.id, Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		},
		Linux: linux,
	}, nil
}

func (s *Service) networkUsage(now time.Time, sb *sandbox) (*runtimeapi.NetworkUsage, error) {
	u, err := s.cfg.Network.Usage(sb.id)
	if err != nil {
		return nil, err
	}
	eth := &runtimeapi.NetworkInterfaceUsage{
		Name: u.Interface, RxBytes: value(u.RxBytes), RxErrors: value(u.RxErrors), TxBytes: value(u.TxBytes), TxErrors: value(u.TxErrors),
	}
	return &runtimeapi.NetworkUsage{Timestamp: now.UnixNano(), DefaultInterface: eth, Interfaces: []*runtimeapi.NetworkInterfaceUsage{eth}}, nil
}

// ListPodSandboxStats returns the usage of the ready sandboxes that match. One
// that ends meanwhile is left out.
func (s *Service) ListPodSandboxStats(ctx context.Context, f *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	ready, err := s.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{
		Id: f.GetId(), LabelSelector: f.GetLabelSelector(),
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	})
	if err != nil {
		return nil, err
	}
	var out []*runtimeapi.PodSandboxStats
	for _, p := range ready {
		stats, err := s.PodSandboxStats(ctx, p.GetId())
		if err != nil {
			continue
		}
		out = append(out, stats)
	}
	return out, nil
}
