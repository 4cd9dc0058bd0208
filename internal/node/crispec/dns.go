package crispec

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What resolvers and the API allow.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

const hostResolvConf = "/etc/resolv.conf"

// systemdUpstream is where systemd-resolved keeps the servers behind its stub.
const systemdUpstream = "/run/systemd/resolve/resolv.conf"

// DNS says how pods resolve names.
type DNS struct {
	// ResolvConf is the host's resolver configuration, read anew for each pod: ""
	// picks /etc/resolv.conf, or what stands behind it where that names only a
	// stub on loopback, which pods can't reach.
	ResolvConf string
	// ClusterDNS are the servers of pods with dnsPolicy ClusterFirst. Without any,
	// those pods get the host's configuration.
	ClusterDNS []string
	// ClusterDomain is the suffix of services' names, e.g. cluster.local.
	ClusterDomain string
}

// forPod returns the contents of the pod's resolv.conf.
func (d DNS) forPod(pod *v1.Pod) (*runtimeapi.DNSConfig, error) {
	config, err := d.unlimited(pod)
	if err != nil {
		return nil, err
	}
	withinLimits(config)
	return config, nil
}

// Problems says what is wrong with the resolver configuration of the pod, as far
// as the pod can be started all the same: what is omitted from it, as the
// kubelet tells, and that no server in it can be reached.
func (d DNS) Problems(pod *v1.Pod) ([]string, error) {
	config, err := d.unlimited(pod)
	if err != nil {
		return nil, err
	}
	problems := withinLimits(config)
	if p := d.unreachable(pod, config); p != "" {
		problems = append(problems, p)
	}
	return problems, nil
}

// unlimited is what is asked for.
func (d DNS) unlimited(pod *v1.Pod) (*runtimeapi.DNSConfig, error) {
	config := &runtimeapi.DNSConfig{}
	if pod.Spec.DNSPolicy != v1.DNSNone {
		host, err := d.host(pod.Spec.HostNetwork)
		if err != nil {
			return nil, err
		}
		config = host
	}
	if d.clusterFirst(pod) && len(d.ClusterDNS) > 0 {
		config.Servers = slices.Clone(d.ClusterDNS)
		config.Options = []string{"ndots:5"}
		if d.ClusterDomain != "" {
			config.Searches = slices.Concat([]string{
				fmt.Sprintf("%s.svc.%s", pod.Namespace, d.ClusterDomain), "svc." + d.ClusterDomain, d.ClusterDomain,
			}, config.Searches)
		}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		config.Servers = append(config.Servers, own.Nameservers...)
		config.Searches = append(config.Searches, own.Searches...)
		for _, o := range own.Options {
			option := o.Name
			if o.Value != nil && *o.Value != "" {
				option += ":" + *o.Value
			}
			config.Options = setOption(config.Options, option)
		}
	}
	return config, nil
}

func (d DNS) clusterFirst(pod *v1.Pod) bool {
	switch pod.Spec.DNSPolicy {
	case v1.DNSClusterFirstWithHostNet:
		return true
	case v1.DNSClusterFirst:
		return !pod.Spec.HostNetwork
	}
	return false
}

// host reads the host's configuration. On the host's network its stub is as
// good for a pod as for anyone.
func (d DNS) host(onHostNetwork bool) (*runtimeapi.DNSConfig, error) {
	if d.ResolvConf != "" {
		return readResolvConf(d.ResolvConf)
	}
	config, err := readResolvConf(hostResolvConf)
	if err != nil || onHostNetwork || !onlyLoopback(config.Servers) {
		return config, err
	}
	if upstream, err := readResolvConf(systemdUpstream); err == nil {
		return upstream, nil
	}
	return config, nil
}

// unreachable says what is wrong with the servers of the pod's configuration, "" if
// nothing is: that all are on loopback, where the host has one and the pod
// hasn't. What the pod itself asks for is its own affair.
func (d DNS) unreachable(pod *v1.Pod, config *runtimeapi.DNSConfig) string {
	servers := config.GetServers()
	if pod.Spec.HostNetwork || pod.Spec.DNSPolicy == v1.DNSNone || len(servers) == 0 || !onlyLoopback(servers) {
		return ""
	}
	return fmt.Sprintf("the pod can't resolve names: %s names only servers on the host's loopback (%s); name one there that pods can reach, or set dnsPolicy: None and dnsConfig.nameservers on the pod",
		cmp.Or(d.ResolvConf, hostResolvConf), strings.Join(servers, ", "))
}

func onlyLoopback(servers []string) bool {
	return !slices.ContainsFunc(servers, func(s string) bool {
		ip, err := netip.ParseAddr(s)
		return err != nil || !ip.IsLoopback()
	})
}

func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	return parseResolvConf(data), nil
}

// parseResolvConf follows resolv.conf(5): servers accumulate, the last search
// line holds, the last of each option holds.
func parseResolvConf(data []byte) *runtimeapi.DNSConfig {
	config := &runtimeapi.DNSConfig{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			config.Servers = append(config.Servers, fields[1])
		case "search":
			config.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					config.Searches = append(config.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			for _, o := range fields[1:] {
				config.Options = setOption(config.Options, o)
			}
		}
	}
	return config
}

// setOption adds an option, in place of one of the same name.
func setOption(options []string, option string) []string {
	name, _, _ := strings.Cut(option, ":")
	for i, o := range options {
		if n, _, _ := strings.Cut(o, ":"); n == name {
			options[i] = option
			return options
		}
	}
	return append(options, option)
}

// withinLimits drops duplicates and what exceeds the limits, from the end, and
// says where it did the latter.
func withinLimits(c *runtimeapi.DNSConfig) (omitted []string) {
	c.Servers = unique(c.Servers)
	if len(c.Servers) > maxNameservers {
		c.Servers = c.Servers[:maxNameservers]
		omitted = append(omitted, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+strings.Join(c.Servers, " "))
	}
	c.Searches = unique(c.Searches)
	asked := len(c.Searches)
	c.Searches = slices.DeleteFunc(c.Searches, func(s string) bool {
		return len(s) > utilvalidation.DNS1123SubdomainMaxLength
	})
	c.Searches = c.Searches[:min(len(c.Searches), maxSearches)]
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	if len(c.Searches) < asked {
		omitted = append(omitted, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+strings.Join(c.Searches, " "))
	}
	return omitted
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
