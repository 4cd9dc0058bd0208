package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	internalapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/keptlogs"
	"errand.dev/errand/internal/node/userns"
	"errand.dev/errand/internal/podtrace"
)

// Config is what a Node needs. Fields are required unless their comment says
// what holds without them.
type Config struct {
	Client kubernetes.Interface
	// Informers must see at least the node's own pods; others are ignored. Their
	// owner starts them, after New.
	Informers informers.SharedInformerFactory
	NodeName  string
	// Runtime and Images are the CRI.
	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	// PullRecords say which pods may have an image that is present; nil: all.
	PullRecords pullmanager.ImagePullManager
	// RootDir has a directory per pod, by UID; MemoryDir too, on a tmpfs, for what
	// may hold secrets ("": below RootDir). LogDir has one per pod for logs. All are
	// absolute.
	RootDir   string
	MemoryDir string
	LogDir    string
	// KeptLogs, if set, keeps logs of Jobs' pods that are removed. Its owner runs it:
	// until it does, no such pod is.
	KeptLogs *keptlogs.Keeper
	// CgroupParent is the cgroup below which the pods' stand, which the runtime
	// makes and limits as sandbox configurations say.
	CgroupParent string
	// HostIPs are the node's addresses, the primary first, at most one per family.
	HostIPs []string
	// Allocatable is what the node gives to pods.
	Allocatable v1.ResourceList
	// MemoryCapacity of the machine in bytes; 0 makes all burstable pods equal when
	// memory runs out.
	MemoryCapacity int64
	// CgroupV2 tells that the machine's controllers are on cgroup version 2, where
	// all of a container is killed when its memory runs out.
	CgroupV2 bool
	// LimitsSwap tells that cgroup version 2 can limit swap.
	LimitsSwap bool
	// DNS says how pods resolve names; the zero value gives them the host's servers
	// and the domain cluster.local.
	DNS crispec.DNS
	// SeccompDefault gives containers that name no seccomp profile the runtime's.
	SeccompDefault bool
	// SeccompProfileRoot holds Localhost profiles; default <RootDir>/../seccomp.
	SeccompProfileRoot string
	// AppArmor tells that the kernel confines by AppArmor profiles; pods that ask for
	// one are refused else.
	AppArmor bool
	// Services, if set, are told of by environment variables.
	Services corelisters.ServiceLister
	// UserIDs are the host's that pods with hostUsers: false may be allotted; default
	// userns.DefaultIDs.
	UserIDs userns.IDs
	// Admit, if set, says why a pod can't be run now, with a reason for its status;
	// no message means that it can.
	Admit func(ctx context.Context, pod *v1.Pod) (reason, message string)
	// Drained says of a container, by the runtime's ID, of which the runtime has no
	// record, whether that is no failure of its own: it was ended on purpose while no
	// agent was there to see it. Nil: none was.
	Drained func(id string) bool
	// Traces records where the pods' time goes; nil: nobody does.
	Traces *podtrace.Recorder
	// Recorder takes events; their source should be the component "kubelet" on this
	// node, as users expect.
	Recorder record.EventRecorder
	// Clock defaults to the real one.
	Clock clock.WithTickerAndDelayedExecution
	// StartConcurrency bounds how many pods make sandboxes and start containers at
	// once; default twice the number of cores. More adds latency, not throughput.
	StartConcurrency int
}

func (c *Config) complete() error {
	var errs []error
	require := func(ok bool, field string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is missing", field))
		}
	}
	require(c.Client != nil, "Client")
	require(c.Informers != nil, "Informers")
	require(c.NodeName != "", "NodeName")
	require(c.Runtime != nil, "Runtime")
	require(c.Images != nil, "Images")
	require(filepath.IsAbs(c.RootDir), "RootDir (absolute)")
	require(filepath.IsAbs(c.LogDir), "LogDir (absolute)")
	require(c.Recorder != nil, "Recorder")
	require(len(c.HostIPs) > 0, "HostIPs")
	if len(errs) > 0 {
		return fmt.Errorf("node configuration: %w", errors.Join(errs...))
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.StartConcurrency <= 0 {
		c.StartConcurrency = 2 * runtime.NumCPU()
	}
	if c.UserIDs == (userns.IDs{}) {
		c.UserIDs = userns.DefaultIDs()
	}
	if c.DNS.ClusterDomain == "" {
		c.DNS.ClusterDomain = "cluster.local"
	}
	if c.SeccompProfileRoot == "" {
		c.SeccompProfileRoot = filepath.Join(filepath.Dir(c.RootDir), "seccomp")
	}
	return nil
}

func (c *Config) spec() crispec.Node {
	return crispec.Node{
		LogDir:             c.LogDir,
		CgroupParent:       c.CgroupParent,
		HostIPs:            c.HostIPs,
		MemoryCapacity:     c.MemoryCapacity,
		CgroupV2:           c.CgroupV2,
		LimitsSwap:         c.LimitsSwap,
		Allocatable:        c.Allocatable,
		SeccompDefault:     c.SeccompDefault,
		SeccompProfileRoot: c.SeccompProfileRoot,
		AppArmor:           c.AppArmor,
		DNS:                c.DNS,
	}
}
