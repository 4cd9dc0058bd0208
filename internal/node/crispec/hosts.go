package crispec

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// HostsPath is where containers find their hosts file.
const HostsPath = "/etc/hosts"

// Hosts returns the contents of the pod's /etc/hosts, as the kubelet writes it.
func (n Node) Hosts(pod *v1.Pod, podIPs []string) ([]byte, error) {
	var b bytes.Buffer
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile(HostsPath)
		if err != nil {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		name, domain, err := n.Hostname(pod)
		if err != nil {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file.\n" +
			"127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		names := name
		if domain != "" {
			names = name + "." + domain + "\t" + name
		}
		for _, ip := range podIPs {
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, a := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.Bytes(), nil
}

// MountsHosts tells whether the container gets that file: not if it mounts
// something there itself, or before the pod has an address.
func MountsHosts(pod *v1.Pod, c *v1.Container, podIPs []string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == HostsPath {
			return false
		}
	}
	return pod.Spec.HostNetwork || len(podIPs) > 0
}
