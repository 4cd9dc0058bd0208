package binder

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// podInfo is a pod and what decisions need of it, worked out once.
type podInfo struct {
	pod      *v1.Pod
	uid      types.UID
	priority int32
	requests resources
	ports    []hostPort
	claims   []podClaim

	nodes         nodeaffinity.RequiredNodeAffinity
	affinity      []podTerm // required podAffinity
	antiAffinity  []podTerm // required podAntiAffinity
	spread        []spreadRule
	preferences   []weightedTerm // preferred podAffinity and, negative, podAntiAffinity
	malformed     error          // a selector that can't be parsed
	needsTopology bool           // any of affinity, antiAffinity, spread, preferences

	key string // classKey's answer once it was asked for
}

// hostPort is a port of the host that a container occupies. ip "" is all of them.
type hostPort struct {
	ip       string
	protocol v1.Protocol
	port     int32
}

// conflicts tells whether two pods can't have these ports on one node.
func (a hostPort) conflicts(b hostPort) bool {
	return a.protocol == b.protocol && a.port == b.port && (a.ip == b.ip || a.ip == "" || b.ip == "")
}

func newPodInfo(pod *v1.Pod) *podInfo {
	p := &podInfo{
		pod:      pod,
		uid:      pod.UID,
		priority: corev1helpers.PodPriority(pod),
		requests: requestsOf(pod),
		ports:    hostPortsOf(pod),
		claims:   claimsOf(pod),
		nodes:    nodeaffinity.GetRequiredNodeAffinity(pod),
	}
	p.malformed = p.parseTopology()
	p.needsTopology = len(p.affinity)+len(p.antiAffinity)+len(p.spread)+len(p.preferences) > 0
	return p
}

// hostPortsOf lists the host ports of all containers that run as long as the pod does.
func hostPortsOf(pod *v1.Pod) []hostPort {
	var ports []hostPort
	add := func(c *v1.Container) {
		for _, port := range c.Ports {
			if port.HostPort <= 0 {
				continue
			}
			p := hostPort{ip: port.HostIP, protocol: port.Protocol, port: port.HostPort}
			if p.protocol == "" {
				p.protocol = v1.ProtocolTCP
			}
			if p.ip == "0.0.0.0" || p.ip == "::" {
				p.ip = ""
			}
			ports = append(ports, p)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return ports
}

// classKey is equal for pods that fit the same nodes: everything that filters
// and scores look at. Labels and namespace count only if the pod's own rules
// look at other pods; what depends on them otherwise (other pods' anti-affinity)
// is marked individual by the filter.
func (p *podInfo) classKey() string {
	if p.key == "" {
		p.key = p.newClassKey()
	}
	return p.key
}

func (p *podInfo) newClassKey() string {
	spec := &p.pod.Spec
	key := struct {
		NodeSelector map[string]string             `json:",omitempty"`
		Affinity     *v1.Affinity                  `json:",omitempty"`
		Tolerations  []v1.Toleration               `json:",omitempty"`
		Spread       []v1.TopologySpreadConstraint `json:",omitempty"`
		Requests     []any
		Ports        [][3]any             `json:",omitempty"`
		Claims       []string             `json:",omitempty"`
		Preemption   *v1.PreemptionPolicy `json:",omitempty"`
		Unsupported  string               `json:",omitempty"`
		Namespace    string               `json:",omitempty"`
		Labels       labels.Set           `json:",omitempty"`
		Priority     int32
	}{
		NodeSelector: spec.NodeSelector,
		Affinity:     spec.Affinity,
		Tolerations:  spec.Tolerations,
		Spread:       spec.TopologySpreadConstraints,
		Requests:     []any{p.requests.cpu, p.requests.memory, p.requests.storage, p.requests.scalar},
		Preemption:   spec.PreemptionPolicy,
		Unsupported:  unsupported(p.pod),
		Priority:     p.priority,
	}
	for _, port := range p.ports {
		key.Ports = append(key.Ports, [3]any{port.ip, port.protocol, port.port})
	}
	if p.needsTopology {
		key.Namespace, key.Labels = p.pod.Namespace, p.pod.Labels
	}
	for _, c := range p.claims {
		key.Claims = append(key.Claims, p.pod.Namespace+"/"+c.name)
	}
	data, err := json.Marshal(key)
	if err != nil {
		return soloKey(p.uid) // can't happen; alone is always right
	}
	return string(data)
}

// soloKey is the class of a pod that must be decided on by itself.
func soloKey(uid types.UID) string { return "pod " + string(uid) }

// sameForScheduling tells whether an update left alone all that decisions look at.
func sameForScheduling(old, cur *podInfo) bool {
	return old.classKey() == cur.classKey() &&
		labels.Equals(old.pod.Labels, cur.pod.Labels) &&
		len(old.pod.Spec.SchedulingGates) == len(cur.pod.Spec.SchedulingGates)
}

// selectorOf is labels.Selector of an API selector; nil selects nothing.
func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s)
}
