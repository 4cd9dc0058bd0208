package eviction

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	upstream "k8s.io/kubernetes/pkg/kubelet/eviction"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/clock"
)

const (
	// Period is how often the machine is looked at: the kubelet's.
	Period = 10 * time.Second
	// announceWithin is how long the API has to take the Node's pressure before a pod
	// ends by it: the store may be on the disk that is full.
	announceWithin = time.Second
)

// Runtime is what is asked of the container runtime; the CRI's RuntimeService
// has it.
type Runtime interface {
	ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error)
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
}

// Pods is what is asked of the node agent. All methods may be called
// concurrently with others of the agent.
type Pods interface {
	// Active returns the pods that haven't ended. They must not be changed.
	Active() []*v1.Pod
	// Evict ends a pod with the reason, message and DisruptionTarget condition of
	// the status, within the grace period, and returns when it has ended. An error
	// means that it hasn't, in much more than that time.
	Evict(ctx context.Context, pod *v1.Pod, status *v1.PodStatus, grace time.Duration) error
	// Ended tells whether the pod has ended and given back what it had.
	Ended(pod *v1.Pod) bool
	// LocalStorage says where the pod's data lies.
	LocalStorage(pod *v1.Pod) LocalStorage
	// DeleteAllUnusedContainers removes what containers of ended pods have left.
	DeleteAllUnusedContainers(ctx context.Context) error
}

// Config is what a Manager needs; all of it but Clock.
type Config struct {
	Policy  Policy
	Host    Host
	Runtime Runtime
	// Images removes images that no pod needs.
	Images upstream.ImageGC
	// Recorder and NodeName are for events about pods and the Node.
	Recorder record.EventRecorder
	NodeName string
	Clock    clock.WithTicker
}

// Manager is upstream's eviction manager on this node.
type Manager struct {
	cfg        Config
	thresholds []evictionapi.Threshold
	dedicated  bool // images have a file system of their own
	manager    upstream.Manager
	admission  lifecycle.PodAdmitHandler

	// Of Run, set before anything asks for them.
	ctx      context.Context
	pods     Pods
	announce func(context.Context)
	disks    disks
}

// New makes a Manager. It reads the machine, from whose size the default
// thresholds follow.
func New(cfg Config) (*Manager, error) {
	if cfg.Host == nil || cfg.Runtime == nil || cfg.Images == nil || cfg.Recorder == nil || cfg.NodeName == "" {
		return nil, errors.New("eviction: a field of Config isn't set")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if err := cfg.Policy.Validate(); err != nil {
		return nil, err
	}
	now, err := cfg.Host.Read()
	if err != nil {
		return nil, fmt.Errorf("eviction: %w", err)
	}
	m := &Manager{cfg: cfg, dedicated: now.NodeFS.device != now.ImageFS.device}
	if m.thresholds, err = cfg.Policy.thresholds(now); err != nil {
		return nil, fmt.Errorf("eviction: %w", err)
	}
	m.manager, m.admission = upstream.NewManager(seam{m}, upstream.Config{
		PressureTransitionPeriod: cfg.Policy.PressureTransitionPeriod,
		MaxPodGracePeriodSeconds: cfg.Policy.MaxPodGracePeriod,
		Thresholds:               m.thresholds,
	}, m.kill, cfg.Images, seam{m}, cfg.Recorder, &v1.ObjectReference{
		Kind: "Node", Name: cfg.NodeName, UID: types.UID(cfg.NodeName),
	}, cfg.Clock, true)
	return m, nil
}

// Run looks after the machine until ctx ends; then it returns nil. announce
// returns once the API has the Node's conditions as Under tells them, or when its
// context ends. It may be called once.
func (m *Manager) Run(ctx context.Context, pods Pods, announce func(context.Context)) error {
	m.ctx, m.pods, m.announce = ctx, pods, announce
	m.disks = disks{clock: m.cfg.Clock, runtime: m.cfg.Runtime, where: pods.LocalStorage, last: map[types.UID]measured{}}
	// What upstream says of each step is the course of things; its events tell users.
	quiet := klog.NewContext(ctx, klog.FromContext(ctx).V(2))
	m.manager.Start(quiet, seam{m}, pods.Active, pods.Ended, Period)
	<-ctx.Done()
	return nil
}

// Under tells whether the node is under a pressure, as of the last look.
func (m *Manager) Under(kind v1.NodeConditionType) bool {
	switch kind {
	case v1.NodeMemoryPressure:
		return m.manager.IsUnderMemoryPressure()
	case v1.NodeDiskPressure:
		return m.manager.IsUnderDiskPressure()
	case v1.NodePIDPressure:
		return m.manager.IsUnderPIDPressure()
	}
	return false
}

// Admit says why a pod can't be run now, with the reason for its status; no
// message means that it can.
func (m *Manager) Admit(ctx context.Context, pod *v1.Pod) (reason, message string) {
	result := m.admission.Admit(ctx, &lifecycle.PodAdmitAttributes{Pod: pod})
	return result.Reason, result.Message
}

// kill ends a pod for upstream's manager.
func (m *Manager) kill(pod *v1.Pod, _ bool, grace *int64, set func(*v1.PodStatus)) error {
	if m.Under(v1.NodeMemoryPressure) || m.Under(v1.NodeDiskPressure) || m.Under(v1.NodePIDPressure) {
		// The pod that takes its place mustn't come here, to be refused.
		ctx, cancel := context.WithTimeout(m.ctx, announceWithin)
		m.announce(ctx)
		cancel()
	}
	status := pod.Status.DeepCopy()
	set(status)
	return m.pods.Evict(m.ctx, pod, status, time.Duration(*grace)*time.Second)
}

// seam is what upstream's manager sees of this one.
type seam struct{ *Manager }

// HasDedicatedImageFs implements upstream's DiskInfoProvider.
func (s seam) HasDedicatedImageFs(context.Context) (bool, error) { return s.dedicated, nil }

// HasDedicatedContainerFs implements upstream's DiskInfoProvider: containers
// write where images are.
func (s seam) HasDedicatedContainerFs(context.Context) (bool, error) { return false, nil }

// DeleteAllUnusedContainers implements upstream's ContainerGC.
func (s seam) DeleteAllUnusedContainers(ctx context.Context) error {
	return s.pods.DeleteAllUnusedContainers(ctx)
}
