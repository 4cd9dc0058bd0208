package main

import "errand.dev/errand/test/ginkgoreport"

// defaultFocus are the groups of tests that errand promises to pass: what SCOPE.md has in.
const defaultFocus = `\[sig-apps\] (Job|CronJob|TTLAfterFinished) |\[sig-node\]|\[sig-storage\]`

// Reasons that several have.
const (
	offByDefault = "features that are off by default in Kubernetes"
	cloud        = "need a certain cloud, or to log in to the node"
	dra          = "dynamic resource allocation: its drivers are services of a cluster's"
	controllers  = "make their pods by a ReplicationController or a StatefulSet"
	csi          = "CSI: its drivers are services of a cluster's"
	remote       = "storage that isn't this machine's"
	block        = "block devices: a PersistentVolume here is a directory"
	kubeletPort  = "ask the kubelet's own port, or measure its process"
)

// outOfScope are the tests within the focus that errand doesn't mean to pass, or not yet, or not on every machine. docs/conformance.md
// tells the same to people, and a test sees to it.
var outOfScope = ginkgoreport.Exclusions{
	{Has: "[Feature:OffByDefault]", Why: offByDefault},
	{Has: "[Provider:", Why: cloud},
	{Has: "[Flaky]", Why: "upstream calls them flaky"},
	{Begins: "[sig-node] ", Has: "[Feature:DynamicResourceAllocation]", Why: dra},
	{Begins: "[sig-node] [DRA]", Why: dra},
	{Begins: "[sig-node] kubelet Clean up pods on node", Why: controllers},
	{Begins: "[sig-node] Kubelet ", Has: "resource usage tracking", Why: kubeletPort},
	{Begins: "[sig-node] ContainerTerminationMetrics", Why: kubeletPort},
	{Begins: "[sig-node] [FeatureGate:KubeletFineGrainedAuthz]", Why: kubeletPort},
	{Begins: "[sig-node] Pod Allocated Endpoint", Why: kubeletPort},
	{Begins: "[sig-node] Security Context When creating a pod with HostUsers metrics", Why: kubeletPort},
	{Begins: "[sig-node] Mount propagation", Why: "look on the node for a process called kubelet"},
	{Begins: "[sig-node] kubelet ", Has: "[Feature:NodeLogQuery]", Why: "a setting of the kubelet that is off by default"},
	{Begins: "[sig-node] ", Has: "[Feature:KubeletInUserNamespace]", Why: "a kubelet that runs in a user namespace"},
	{Begins: "[sig-node] ", Has: "[Feature:KubeletCredentialProviders]", Why: cloud},
	{Begins: "[sig-node] ", Has: "[Feature:DownwardAPIHugePages]", Why: "set aside huge pages of the machine's memory"},
	{Begins: "[sig-node] Pod garbage collector", Why: "count on the settings of upstream's test clusters"},
	{Begins: "[sig-node] PrivilegedPod", Why: "make a network interface of type dummy", Lacks: dummyInterfaces},
	{Begins: "[sig-node] Pod InPlace Resize Container guaranteed qos", Has: "restart", Why: "expect a negative oom_score_adj", Lacks: negativeOOMScoreAdj},
	{Begins: "[sig-node] PLR Pod InPlace Resize [FeatureGate:InPlacePodLevelResourcesVerticalScaling] PLR guaranteed qos", Has: "restart", Why: "expect a negative oom_score_adj", Lacks: negativeOOMScoreAdj},

	{Begins: "[sig-storage] CSI", Why: csi},
	{Begins: "[sig-storage] MutableCSINodeAllocatableCount", Why: csi},
	{Begins: "[sig-storage] PersistentVolumes CSI Conformance", Why: csi},
	{Begins: "[sig-storage] VolumeAttachment", Why: csi},
	{Begins: "[sig-storage] VolumeAttributesClass", Why: csi},
	{Begins: "[sig-storage] Dynamic Provisioning", Why: csi},
	{Begins: "[sig-storage] In-tree Volumes [Driver: nfs", Why: remote},
	{Begins: "[sig-storage] In-tree Volumes [Driver: iscsi]", Why: remote},
	{Begins: "[sig-storage] PersistentVolumes NFS", Why: remote},
	{Begins: "[sig-storage] In-tree Volumes", Has: "(block volmode)", Why: block},
	{Begins: "[sig-storage] In-tree Volumes", Has: "in a pod with mismatched mode", Why: block},
	{Begins: "[sig-storage] In-tree Volumes", Has: "[LocalVolumeType: block]", Why: block},
	{Begins: "[sig-storage] PersistentVolumes-local [LocalVolumeType: block]", Why: block},
	{Begins: "[sig-storage] PersistentVolumes-local [LocalVolumeType: blockfswithoutformat]", Why: block},
	{Begins: "[sig-storage] PersistentVolumes-expansion", Why: "a directory has no size"},
	{Begins: "[sig-storage] ", Has: "[LocalVolumeType: gce-localssd-scsi-fs]", Why: cloud},
	{Begins: "[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps", Why: controllers},
	{Begins: "[sig-storage] PersistentVolumes-local StatefulSet", Why: controllers},
	{Begins: "[sig-storage] PersistentVolumes Default StorageClass", Why: controllers},
	{Begins: "[sig-storage] Volume metrics", Why: "ask kube-controller-manager's own port"},
	{Begins: "[sig-storage] ", Has: "[Disruptive]", Why: "stop the kubelet, or take what others' tests need"},
}
