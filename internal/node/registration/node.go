package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/inplacepodresize"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// errForeignNode tells that the Node in the API can't be this machine's.
var errForeignNode = errors.New("the registered node does not match")

// desired is the Node as it should be. have is what it is, or just a name.
func (r *Registration) desired(have *v1.Node, o observation) (*v1.Node, error) {
	want := have.DeepCopy()
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	maps.Copy(want.Labels, map[string]string{
		v1.LabelHostname:   r.cfg.NodeName,
		v1.LabelOSStable:   "linux",
		v1.LabelArchStable: r.arch,
		// The kubelet still sets these, and old manifests still select by them.
		kubeletapis.LabelOS:   "linux",
		kubeletapis.LabelArch: r.arch,
	})
	maps.Copy(want.Labels, r.cfg.Labels)
	if err := setPodCIDRs(want, r.cfg.PodCIDRs); err != nil {
		return nil, err
	}
	want.Spec.Taints = taints(have.Spec.Taints, o, have.Spec.Unschedulable)

	s := &want.Status
	s.Capacity = capacity(r.facts, r.cfg.MaxPods)
	maps.Copy(s.Capacity, extended(have.Status.Capacity))
	s.Allocatable = allocatable(s.Capacity, r.cfg.Reserved)
	s.Conditions = conditions(have.Status.Conditions, o, metav1.NewTime(r.cfg.Clock.Now()))
	s.Addresses = []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: r.cfg.NodeIP.String()},
		{Type: v1.NodeHostName, Address: r.cfg.NodeName},
	}
	s.NodeInfo = r.systemInfo(have.Status.NodeInfo, o.version)
	s.Images = r.images
	s.DeclaredFeatures = slices.Clone(declaredFeatures)
	if o.runtime != nil {
		s.RuntimeHandlers, s.Features = handlers(o.runtime), features(o.runtime)
	}
	return want, nil
}

// declaredFeatures are what status.declaredFeatures says of pods that not every node
// of a cluster may know how to run (KEP-5328), in order.
var declaredFeatures = []string{
	inplacepodresize.IPPRPodLevelResourcesFeatureGate,
	inplacepodresize.IPPRInitContainersFeatureGate,
	restartallcontainers.RestartAllContainersOnContainerExits,
}

// setPodCIDRs sets the ranges of a Node that has none. The API server lets
// nobody change them.
func setPodCIDRs(node *v1.Node, cidrs []string) error {
	switch {
	case len(cidrs) == 0 || slices.Equal(node.Spec.PodCIDRs, cidrs):
		return nil
	case len(node.Spec.PodCIDRs) > 0:
		return fmt.Errorf("%w: node %q has spec.podCIDRs %v and this errand is configured for %v; configure the former, or delete the node once its pods are gone",
			errForeignNode, node.Name, node.Spec.PodCIDRs, cidrs)
	}
	node.Spec.PodCIDR, node.Spec.PodCIDRs = cidrs[0], slices.Clone(cidrs)
	return nil
}

// systemInfo is status.nodeInfo. While the runtime doesn't answer its version
// stays what it was.
func (r *Registration) systemInfo(have v1.NodeSystemInfo, runtime *runtimeapi.VersionResponse) v1.NodeSystemInfo {
	info := v1.NodeSystemInfo{
		MachineID:               r.facts.MachineID,
		SystemUUID:              r.facts.SystemUUID,
		BootID:                  r.facts.BootID,
		KernelVersion:           r.facts.Kernel,
		OSImage:                 r.facts.OSImage,
		ContainerRuntimeVersion: have.ContainerRuntimeVersion,
		KubeletVersion:          r.cfg.Version,
		OperatingSystem:         "linux",
		Architecture:            r.arch,
	}
	if runtime != nil {
		info.ContainerRuntimeVersion = runtime.GetRuntimeName() + "://" + runtime.GetRuntimeVersion()
	}
	if r.facts.Swap > 0 {
		info.Swap = &v1.NodeSwapStatus{Capacity: &r.facts.Swap}
	}
	return info
}

func handlers(status *runtimeapi.StatusResponse) []v1.NodeRuntimeHandler {
	var out []v1.NodeRuntimeHandler
	for _, h := range status.GetRuntimeHandlers() {
		handler := v1.NodeRuntimeHandler{Name: h.GetName()}
		if f := h.GetFeatures(); f != nil {
			handler.Features = &v1.NodeRuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: &f.RecursiveReadOnlyMounts, UserNamespaces: &f.UserNamespaces,
			}
		}
		out = append(out, handler)
	}
	return out
}

func features(status *runtimeapi.StatusResponse) *v1.NodeFeatures {
	f := status.GetFeatures()
	if f == nil {
		return nil
	}
	return &v1.NodeFeatures{SupplementalGroupsPolicy: &f.SupplementalGroupsPolicy}
}

// listImages notes the images that the machine has, the largest first. If they
// can't be listed the last list stands.
func (r *Registration) listImages(ctx context.Context) {
	list, err := r.cfg.Images.ListImages(ctx, nil)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Images could not be listed", "err", err)
		return
	}
	r.relist = false
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *runtimeapi.Image) int {
		return cmp.Compare(b.GetSize(), a.GetSize())
	})
	r.images = make([]v1.ContainerImage, 0, min(len(list), maxImages))
	for _, image := range list[:min(len(list), maxImages)] {
		r.images = append(r.images, v1.ContainerImage{
			Names:     slices.Concat(image.GetRepoDigests(), image.GetRepoTags()),
			SizeBytes: int64(image.GetSize()),
		})
	}
}

// sameStatus tells whether writing want would say anything new. Heartbeats aren't news.
func sameStatus(have, want *v1.NodeStatus) bool {
	a, b := *have, *want
	a.Conditions, b.Conditions = withoutBeats(a.Conditions), withoutBeats(b.Conditions)
	return equality.Semantic.DeepEqual(a, b)
}

func withoutBeats(conditions []v1.NodeCondition) []v1.NodeCondition {
	out := slices.Clone(conditions)
	for i := range out {
		out[i].LastHeartbeatTime = metav1.Time{}
	}
	return out
}

// sameSpec compares what a check may write besides the status.
func sameSpec(have, want *v1.Node) bool {
	return maps.Equal(have.Labels, want.Labels) &&
		have.Spec.Unschedulable == want.Spec.Unschedulable &&
		slices.Equal(have.Spec.PodCIDRs, want.Spec.PodCIDRs) &&
		slices.EqualFunc(have.Spec.Taints, want.Spec.Taints, func(a, b v1.Taint) bool {
			return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
		})
}
