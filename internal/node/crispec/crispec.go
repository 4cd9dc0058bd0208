// Package crispec translates pods into what the container runtime is told: the
// configurations of sandboxes and containers in terms of the CRI.
//
// It owns the translation alone: names, hosts file, DNS, environment, security
// context, resources. It calls no runtime; the objects that an environment refers
// to come through the Objects interface; the only files it reads are the host's
// resolv.conf and hosts.
package crispec

import (
	"fmt"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
)

// Node is what translation needs to know of the machine and its configuration.
// The zero value of a field turns off what it is for.
type Node struct {
	// LogDir is the root of the pods' log directories.
	LogDir string
	// CgroupParent is the cgroup below which pods' cgroups stand.
	CgroupParent string
	// HostIPs are the node's addresses, the primary first.
	HostIPs []string
	// MemoryCapacity of the machine in bytes, for oom_score_adj.
	MemoryCapacity int64
	// CgroupV2 tells that the machine's controllers are on cgroup version 2.
	CgroupV2 bool
	// LimitsSwap tells that cgroup version 2 can limit swap.
	LimitsSwap bool
	// Allocatable stands in for limits that a container doesn't set, in
	// resourceFieldRefs.
	Allocatable v1.ResourceList
	// SeccompDefault gives RuntimeDefault to containers that name no profile.
	SeccompDefault bool
	// SeccompProfileRoot is the directory of Localhost profiles.
	SeccompProfileRoot string
	// AppArmor tells that the kernel confines by AppArmor profiles.
	AppArmor bool
	DNS      DNS
}

// nameMax is how many bytes a file's name may have (NAME_MAX).
const nameMax = 255

// PodLogDir is the directory of the pod's log files: <namespace>_<name>_<uid>
// below LogDir, as log collectors expect. Of a name that is too long for a file
// system the end is left out; the UID tells the pod from others.
func (n Node) PodLogDir(namespace, name string, uid types.UID) string {
	if over := len(namespace) + len(name) + len(uid) + len("__") - nameMax; over > 0 {
		name = name[:max(len(name)-over, 0)]
	}
	return filepath.Join(n.LogDir, strings.Join([]string{namespace, name, string(uid)}, "_"))
}

// UIDOfLogDir returns the UID of the pod that a directory below LogDir is of.
func UIDOfLogDir(base string) types.UID {
	return types.UID(base[strings.LastIndexByte(base, '_')+1:])
}

// ContainerLog is the path of a container run's log relative to PodLogDir.
func ContainerLog(container string, restarts int32) string {
	return filepath.Join(container, fmt.Sprintf("%d.log", restarts))
}

// CgroupPath is the pod's cgroup: <CgroupParent>/pod<uid>. There is no level per
// quality of service in between, as the kubelet has: its CPU weight would have to
// follow the sum of its pods' requests at all times, while weights of pods side by
// side are right by themselves.
func (n Node) CgroupPath(pod *v1.Pod) string {
	return filepath.Join(n.CgroupParent, "pod"+string(pod.UID))
}

// maxHostname is the kernel's limit in bytes.
const maxHostname = 63

// Hostname returns the pod's host name and, if it has one, its domain (below
// DNS.ClusterDomain).
func (n Node) Hostname(pod *v1.Pod) (name, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil {
		if problems := utilvalidation.IsDNS1123Subdomain(*o); len(problems) > 0 {
			return "", "", fmt.Errorf("pod HostnameOverride %q is not a valid DNS subdomain: %s", *o, strings.Join(problems, ";"))
		}
		return shorten(*o), "", nil
	}
	name = pod.Name
	if pod.Spec.Hostname != "" {
		if problems := utilvalidation.IsDNS1123Label(pod.Spec.Hostname); len(problems) > 0 {
			return "", "", fmt.Errorf("pod Hostname %q is not a valid DNS label: %s", pod.Spec.Hostname, strings.Join(problems, ";"))
		}
		name = pod.Spec.Hostname
	}
	if sub := pod.Spec.Subdomain; sub != "" {
		if problems := utilvalidation.IsDNS1123Label(sub); len(problems) > 0 {
			return "", "", fmt.Errorf("pod Subdomain %q is not a valid DNS label: %s", sub, strings.Join(problems, ";"))
		}
		domain = fmt.Sprintf("%s.%s.svc.%s", sub, pod.Namespace, n.DNS.ClusterDomain)
	}
	return shorten(name), domain, nil
}

func shorten(name string) string {
	if len(name) <= maxHostname {
		return name
	}
	return strings.TrimRight(name[:maxHostname], "-.")
}

// kernelHostname is what uname shows: the short name, or all of it with
// setHostnameAsFQDN (KEP-1797).
func kernelHostname(pod *v1.Pod, name, domain string) (string, error) {
	if pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN || domain == "" {
		return name, nil
	}
	fqdn := name + "." + domain
	if len(fqdn) > maxHostname+1 {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
			fqdn, maxHostname+1, len(fqdn))
	}
	return fqdn, nil
}

// describe names a pod as the kubelet's messages do.
func describe(pod *v1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
