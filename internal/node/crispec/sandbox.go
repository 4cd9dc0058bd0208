package crispec

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/runtimepod"
)

// Sandbox returns the configuration of the pod's sandbox number attempt. users is
// its user namespace; nil means the host's.
func (n Node) Sandbox(pod *v1.Pod, attempt uint32, users *runtimeapi.UserNamespace) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := n.DNS.forPod(pod)
	if err != nil {
		return nil, err
	}
	linux, err := n.linuxSandbox(pod, users)
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      pod.Name,
			Namespace: pod.Namespace,
			Uid:       string(pod.UID),
			Attempt:   attempt,
		},
		Labels:       runtimepod.PodLabels(pod),
		Annotations:  runtimepod.PodAnnotations(pod),
		LogDirectory: n.PodLogDir(pod.Namespace, pod.Name, pod.UID),
		DnsConfig:    dns,
		PortMappings: portMappings(pod),
		Linux:        linux,
	}
	if !pod.Spec.HostNetwork {
		name, domain, err := n.Hostname(pod)
		if err != nil {
			return nil, err
		}
		if config.Hostname, err = kernelHostname(pod, name, domain); err != nil {
			return nil, err
		}
	}
	return config, nil
}

func (n Node) linuxSandbox(pod *v1.Pod, users *runtimeapi.UserNamespace) (*runtimeapi.LinuxPodSandboxConfig, error) {
	linux := &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent: n.CgroupPath(pod),
		Sysctls:      map[string]string{},
		Resources:    n.podResources(pod),
		Overhead:     overhead(pod),
		SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			Privileged:       anyPrivileged(pod),
			NamespaceOptions: namespaces(pod, users),
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		},
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return linux, nil
	}
	for _, s := range sc.Sysctls {
		linux.Sysctls[dotted(s.Name)] = s.Value
	}
	groups, err := groupsOf(sc)
	if err != nil {
		return nil, err
	}
	linux.SecurityContext.RunAsUser = int64Value(sc.RunAsUser)
	linux.SecurityContext.RunAsGroup = int64Value(sc.RunAsGroup)
	linux.SecurityContext.SupplementalGroups = groups.ids
	linux.SecurityContext.SupplementalGroupsPolicy = groups.policy
	linux.SecurityContext.SelinuxOptions = selinux(sc.SELinuxOptions)
	return linux, nil
}

// dotted writes a sysctl's name with dots; where slashes separate, dots belong
// to the parts.
func dotted(name string) string {
	i := strings.IndexAny(name, "./")
	if i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// namespaces tells which namespaces of the host, of the pod, or of its own a
// container has.
func namespaces(pod *v1.Pod, users *runtimeapi.UserNamespace) *runtimeapi.NamespaceOption {
	mode := func(host bool, otherwise runtimeapi.NamespaceMode) runtimeapi.NamespaceMode {
		if host {
			return runtimeapi.NamespaceMode_NODE
		}
		return otherwise
	}
	pid := runtimeapi.NamespaceMode_CONTAINER
	if shared := pod.Spec.ShareProcessNamespace; shared != nil && *shared {
		pid = runtimeapi.NamespaceMode_POD
	}
	return &runtimeapi.NamespaceOption{
		Network: mode(pod.Spec.HostNetwork, runtimeapi.NamespaceMode_POD),
		Ipc:     mode(pod.Spec.HostIPC, runtimeapi.NamespaceMode_POD),
		Pid:     mode(pod.Spec.HostPID, pid),

		UsernsOptions: users,
	}
}

// portMappings maps the host ports of regular containers and sidecars.
func portMappings(pod *v1.Pod) []*runtimeapi.PortMapping {
	var mappings []*runtimeapi.PortMapping
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			mappings = append(mappings, &runtimeapi.PortMapping{
				Protocol:      protocol(p.Protocol),
				ContainerPort: p.ContainerPort,
				HostPort:      p.HostPort,
				HostIp:        p.HostIP,
			})
		}
	}
	return mappings
}

func protocol(p v1.Protocol) runtimeapi.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case v1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	default:
		return runtimeapi.Protocol_TCP
	}
}

func anyPrivileged(pod *v1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c v1.Container) bool {
		return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	})
}

type groups struct {
	ids    []int64
	policy runtimeapi.SupplementalGroupsPolicy
}

func groupsOf(sc *v1.PodSecurityContext) (groups, error) {
	var g groups
	if sc.FSGroup != nil {
		g.ids = append(g.ids, *sc.FSGroup)
	}
	g.ids = append(g.ids, sc.SupplementalGroups...)
	if sc.SupplementalGroupsPolicy != nil {
		p, ok := runtimeapi.SupplementalGroupsPolicy_value[string(*sc.SupplementalGroupsPolicy)]
		if !ok {
			return groups{}, fmt.Errorf("unsupported supplementalGroupsPolicy: %s", *sc.SupplementalGroupsPolicy)
		}
		g.policy = runtimeapi.SupplementalGroupsPolicy(p)
	}
	return g, nil
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

func selinux(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}
