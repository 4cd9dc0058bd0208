package crispec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func testNode(t *testing.T) Node {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\nsearch corp.example.\noptions ndots:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Node{
		LogDir:         "/logs",
		CgroupParent:   "/errand",
		HostIPs:        []string{"192.0.2.1"},
		MemoryCapacity: 8 << 30,
		Allocatable:    v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi")},
		DNS:            DNS{ResolvConf: resolv, ClusterDomain: "cluster.local"},
	}
}

func testPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"l": "v"}},
		Spec: v1.PodSpec{
			NodeName:        "node-1",
			DNSPolicy:       v1.DNSClusterFirst,
			SecurityContext: &v1.PodSecurityContext{},
			Containers:      []v1.Container{{Name: "c", Image: "img"}},
		},
	}
}

func mustSandbox(t *testing.T, n Node, pod *v1.Pod) *runtimeapi.PodSandboxConfig {
	t.Helper()
	config, err := n.Sandbox(pod, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestSandbox(t *testing.T) {
	pod := testPod()
	pod.Spec.SecurityContext = &v1.PodSecurityContext{
		RunAsUser: ptr.To[int64](5), FSGroup: ptr.To[int64](7), SupplementalGroups: []int64{8},
		Sysctls: []v1.Sysctl{{Name: "kernel/shm_rmid_forced", Value: "1"}, {Name: "net.ipv4.conf.eth0/1.mtu", Value: "2"}},
	}
	pod.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: v1.ProtocolUDP}, {ContainerPort: 81}}
	c := mustSandbox(t, testNode(t), pod)
	if c.Metadata.Attempt != 3 || c.Metadata.Uid != "u" || c.Hostname != "p" || c.LogDirectory != "/logs/ns_p_u" || c.Linux.CgroupParent != "/errand/podu" {
		t.Errorf("%v", c)
	}
	if diff := cmp.Diff(map[string]string{
		"l": "v", "io.kubernetes.pod.name": "p", "io.kubernetes.pod.namespace": "ns", "io.kubernetes.pod.uid": "u",
	}, c.Labels); diff != "" {
		t.Error(diff)
	}
	if len(c.PortMappings) != 1 || c.PortMappings[0].HostPort != 8080 || c.PortMappings[0].Protocol != runtimeapi.Protocol_UDP {
		t.Errorf("%v", c.PortMappings)
	}
	if diff := cmp.Diff(map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.conf.eth0/1.mtu": "2"}, c.Linux.Sysctls); diff != "" {
		t.Error(diff)
	}
	sc := c.Linux.SecurityContext
	if sc.RunAsUser.Value != 5 || !cmp.Equal(sc.SupplementalGroups, []int64{7, 8}) || sc.Seccomp.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault {
		t.Errorf("%v", sc)
	}
	if ns := sc.NamespaceOptions; ns.Network != runtimeapi.NamespaceMode_POD || ns.Pid != runtimeapi.NamespaceMode_CONTAINER {
		t.Errorf("%v", ns)
	}
}

func TestLogDirOfALongName(t *testing.T) {
	namespace, name, uid := strings.Repeat("n", 63), strings.Repeat("p", 253), types.UID("0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f")
	dir := Node{LogDir: "/logs"}.PodLogDir(namespace, name, uid)
	base := strings.TrimPrefix(dir, "/logs/")
	if len(base) != 255 || UIDOfLogDir(base) != uid || !strings.HasPrefix(base, namespace+"_ppp") {
		t.Errorf("%q", dir)
	}
}

func TestHostNamespaces(t *testing.T) {
	pod := testPod()
	pod.Spec.HostNetwork, pod.Spec.HostPID, pod.Spec.HostIPC = true, true, true
	c := mustSandbox(t, testNode(t), pod)
	ns := c.Linux.SecurityContext.NamespaceOptions
	if ns.Network != runtimeapi.NamespaceMode_NODE || ns.Pid != runtimeapi.NamespaceMode_NODE || ns.Ipc != runtimeapi.NamespaceMode_NODE || c.Hostname != "" {
		t.Errorf("%v %q", ns, c.Hostname)
	}
}

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	for name, c := range map[string]struct {
		spec         v1.PodSpec
		name, domain string
		fails        bool
	}{
		"pod's name":  {v1.PodSpec{}, "p", "", false},
		"own":         {v1.PodSpec{Hostname: "h", Subdomain: "s"}, "h", "s.ns.svc.cluster.local", false},
		"override":    {v1.PodSpec{HostnameOverride: ptr.To("x.y"), Subdomain: "s"}, "x.y", "", false},
		"too long":    {v1.PodSpec{HostnameOverride: &long}, strings.Repeat("a", 62), "", false},
		"not a label": {v1.PodSpec{Hostname: "A"}, "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.HostnameOverride = c.spec.Hostname, c.spec.Subdomain, c.spec.HostnameOverride
			n, d, err := testNode(t).Hostname(pod)
			if n != c.name || d != c.domain || (err != nil) != c.fails {
				t.Errorf("%q %q %v", n, d, err)
			}
		})
	}
	pod := testPod()
	pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = "s", ptr.To(true)
	if c := mustSandbox(t, testNode(t), pod); c.Hostname != "p.s.ns.svc.cluster.local" {
		t.Error(c.Hostname)
	}
}

func TestDNS(t *testing.T) {
	host := &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"corp.example"}, Options: []string{"ndots:2"}}
	cluster := &runtimeapi.DNSConfig{
		Servers: []string{"10.96.0.10"}, Options: []string{"ndots:5"},
		Searches: []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"},
	}
	own := &v1.PodDNSConfig{
		Nameservers: []string{"1.1.1.1", "192.0.2.53"}, Searches: []string{"own.example"},
		Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("1")}, {Name: "edns0"}},
	}
	for name, c := range map[string]struct {
		servers []string
		pod     func(*v1.PodSpec)
		want    *runtimeapi.DNSConfig
	}{
		"no cluster DNS":        {nil, func(*v1.PodSpec) {}, host},
		"cluster DNS":           {[]string{"10.96.0.10"}, func(*v1.PodSpec) {}, cluster},
		"Default":               {[]string{"10.96.0.10"}, func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSDefault }, host},
		"host network":          {[]string{"10.96.0.10"}, func(s *v1.PodSpec) { s.HostNetwork = true }, host},
		"host network, cluster": {[]string{"10.96.0.10"}, func(s *v1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, v1.DNSClusterFirstWithHostNet }, cluster},
		"None":                  {nil, func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSNone }, &runtimeapi.DNSConfig{}},
		"own on top of the host": {nil, func(s *v1.PodSpec) { s.DNSConfig = own }, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.53", "1.1.1.1"}, Searches: []string{"corp.example", "own.example"}, Options: []string{"ndots:1", "edns0"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n, pod := testNode(t), testPod()
			n.DNS.ClusterDNS = c.servers
			c.pod(&pod.Spec)
			got := mustSandbox(t, n, pod).DnsConfig
			if diff := cmp.Diff([][]string{c.want.Servers, c.want.Searches, c.want.Options}, [][]string{got.Servers, got.Searches, got.Options}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	for name, c := range map[string]struct {
		servers []string
		pod     func(*v1.PodSpec)
		want    bool
	}{
		"a stub":                {[]string{"127.0.0.53", "::1"}, func(*v1.PodSpec) {}, true},
		"one can be reached":    {[]string{"127.0.0.53", "192.0.2.53"}, func(*v1.PodSpec) {}, false},
		"none":                  {nil, func(*v1.PodSpec) {}, false},
		"on the host's network": {[]string{"127.0.0.53"}, func(s *v1.PodSpec) { s.HostNetwork = true }, false},
		"a resolver in the pod": {[]string{"127.0.0.1"}, func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSNone }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			c.pod(&pod.Spec)
			got := DNS{}.unreachable(pod, &runtimeapi.DNSConfig{Servers: c.servers})
			if (got != "") != c.want || c.want && !strings.Contains(got, "/etc/resolv.conf names only servers on the host's loopback (127.0.0.53, ::1)") {
				t.Error(got)
			}
		})
	}
}

func TestDNSLimits(t *testing.T) {
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("d%d.example", i)
	}
	for name, c := range map[string]struct {
		own               v1.PodDNSConfig
		servers, searches int
		want              []string
	}{
		"within":         {v1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "1.1.1.1", "192.0.2.53"}}, 3, 4, nil},
		"servers":        {v1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3"}}, 3, 4, []string{"the applied nameserver line is: 10.96.0.10 1.1.1.1 2.2.2.2"}},
		"searches":       {v1.PodDNSConfig{Searches: many}, 1, 32, []string{"the applied search line is: ns.svc.cluster.local svc.cluster.local"}},
		"one too long":   {v1.PodDNSConfig{Searches: []string{strings.Repeat("a.", 150)}}, 1, 4, []string{"the applied search line is: "}},
		"twice the same": {v1.PodDNSConfig{Searches: []string{"corp.example"}}, 1, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n, pod := testNode(t), testPod()
			n.DNS.ClusterDNS = []string{"10.96.0.10"}
			pod.Spec.DNSConfig = &c.own
			got, err := n.DNS.Problems(pod)
			if err != nil || len(got) != len(c.want) || len(got) > 0 && !strings.Contains(got[0], c.want[0]) {
				t.Errorf("problems %q, %v", got, err)
			}
			config := mustSandbox(t, n, pod).DnsConfig
			if len(config.Servers) != c.servers || len(config.Searches) != c.searches {
				t.Errorf("%d servers, %d search paths", len(config.Servers), len(config.Searches))
			}
		})
	}
}

func TestHosts(t *testing.T) {
	pod := testPod()
	pod.Spec.Subdomain = "s"
	got, err := testNode(t).Hosts(pod, []string{"10.0.0.2", "fd00::2"})
	if err != nil {
		t.Fatal(err)
	}
	want := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
		"10.0.0.2\tp.s.ns.svc.cluster.local\tp\nfd00::2\tp.s.ns.svc.cluster.local\tp\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	c := &v1.Container{VolumeMounts: []v1.VolumeMount{{MountPath: "/etc/hosts"}}}
	if MountsHosts(pod, c, []string{"10.0.0.2"}) || MountsHosts(pod, &v1.Container{}, nil) || !MountsHosts(pod, &v1.Container{}, []string{"10.0.0.2"}) {
		t.Error("MountsHosts")
	}
}

func list(cpu, memory string) v1.ResourceList {
	l := v1.ResourceList{}
	if cpu != "" {
		l[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func TestResources(t *testing.T) {
	type r struct{ shares, quota, memory, oom int64 }
	for name, c := range map[string]struct {
		requests, limits v1.ResourceList
		pod              *v1.ResourceRequirements
		want             r
	}{
		"best effort":       {nil, nil, nil, r{2, 0, 0, 1000}},
		"guaranteed":        {list("500m", "1Gi"), list("500m", "1Gi"), nil, r{512, 50000, 1 << 30, -997}},
		"burstable":         {list("100m", "1Gi"), list("2", "2Gi"), nil, r{102, 200000, 2 << 30, 875}},
		"limit as request":  {nil, list("1", ""), nil, r{1024, 100000, 0, 999}},
		"tiny":              {list("1m", ""), list("1m", ""), nil, r{2, 1000, 0, 999}},
		"asks for too much": {list("1", "64Gi"), nil, nil, r{1024, 0, 0, 3}},
		"the pod's limits":  {nil, nil, &v1.ResourceRequirements{Requests: list("1", "4Gi"), Limits: list("2", "4Gi")}, r{2048, 200000, 4 << 30, 500}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.Resources = c.pod
			pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: c.requests, Limits: c.limits}
			got := testNode(t).Resources(pod, &pod.Spec.Containers[0])
			if diff := cmp.Diff(c.want, r{got.CpuShares, got.CpuQuota, got.MemoryLimitInBytes, got.OomScoreAdj}, cmp.AllowUnexported(r{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// When memory runs out the kernel kills all of a container, where it can.
func TestOOMGroup(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		n, pod := testNode(t), testPod()
		n.CgroupV2 = v2
		var want map[string]string
		if v2 {
			want = map[string]string{"memory.oom.group": "1"}
		}
		if diff := cmp.Diff(want, n.Resources(pod, &pod.Spec.Containers[0]).Unified); diff != "" {
			t.Errorf("v2=%v: %s", v2, diff)
		}
		if u := mustSandbox(t, n, pod).Linux.Resources.Unified; u != nil {
			t.Errorf("the whole pod would be killed: %v", u)
		}
	}
}

// A container has no swap, with a memory limit or without, where that can be had.
func TestNoSwap(t *testing.T) {
	for _, tc := range []struct {
		v2, limits bool
		want       string
	}{{true, true, "0"}, {true, false, ""}, {false, true, ""}} {
		n, pod := testNode(t), testPod()
		n.CgroupV2, n.LimitsSwap = tc.v2, tc.limits
		if got := n.Resources(pod, &pod.Spec.Containers[0]).Unified["memory.swap.max"]; got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

// The pod's cgroup has the limits that the pod or each of its containers sets.
func TestPodResources(t *testing.T) {
	type r struct{ quota, memory, huge int64 }
	huge := list("1", "1Gi")
	huge["hugepages-2Mi"] = resource.MustParse("4Mi")
	overhead := list("1", "1Gi")
	for name, c := range map[string]struct {
		pod        *v1.ResourceRequirements
		init, main v1.ResourceList
		side       v1.ResourceList
		want       r
	}{
		"all limited":               {nil, list("4", "1Gi"), list("1", "1Gi"), list("1", "2Gi"), r{400000, 3 << 30, 0}},
		"each resource for itself":  {nil, list("4", "1Gi"), list("1", "1Gi"), list("", "2Gi"), r{0, 3 << 30, 0}},
		"an unlimited container":    {nil, list("4", "1Gi"), list("1", "1Gi"), nil, r{0, 0, 0}},
		"an unlimited init":         {nil, nil, list("1", "1Gi"), list("1", "1Gi"), r{0, 0, 0}},
		"the pod's own memory":      {&v1.ResourceRequirements{Limits: list("", "4Gi")}, nil, list("1", "1Gi"), nil, r{0, 4 << 30, 0}},
		"huge pages of a container": {nil, nil, huge, nil, r{0, 0, 4 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.Overhead = overhead // which the runtime adds
			pod.Spec.Resources = c.pod
			limited := func(name string, l v1.ResourceList) v1.Container {
				return v1.Container{Name: name, Resources: v1.ResourceRequirements{Limits: l}}
			}
			pod.Spec.InitContainers = []v1.Container{limited("init", c.init)}
			pod.Spec.Containers = []v1.Container{limited("main", c.main), limited("side", c.side)}
			if c.want.huge > 0 {
				pod.Spec.Containers[0].Resources.Requests = c.main
			}
			got := mustSandbox(t, testNode(t), pod).Linux.Resources
			have := r{quota: got.CpuQuota, memory: got.MemoryLimitInBytes}
			for _, h := range got.HugepageLimits {
				have.huge += int64(h.Limit)
			}
			if diff := cmp.Diff(c.want, have, cmp.AllowUnexported(r{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Huge pages that the node has are for those who ask for them alone.
func TestHugePages(t *testing.T) {
	n, pod := testNode(t), testPod()
	n.Allocatable["hugepages-2Mi"], n.Allocatable["hugepages-1Gi"] = resource.MustParse("8Mi"), resource.MustParse("0")
	asks := v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
	pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: "d", Resources: v1.ResourceRequirements{Limits: asks, Requests: asks}})
	limits := func(bytes uint64) []*runtimeapi.HugepageLimit {
		return []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: bytes}}
	}
	for what, tc := range map[string]struct{ got, want []*runtimeapi.HugepageLimit }{
		"who asks for none": {n.Resources(pod, &pod.Spec.Containers[0]).HugepageLimits, limits(0)},
		"who asks":          {n.Resources(pod, &pod.Spec.Containers[1]).HugepageLimits, limits(4 << 20)},
		"the pod":           {mustSandbox(t, n, pod).Linux.Resources.HugepageLimits, limits(4 << 20)},
		"a pod with none":   {mustSandbox(t, n, testPod()).Linux.Resources.HugepageLimits, limits(0)},
	} {
		if diff := cmp.Diff(tc.want, tc.got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// A pod of no weight has the least there is, and not twice that.
func TestNoOverhead(t *testing.T) {
	pod := testPod()
	linux := mustSandbox(t, testNode(t), pod).Linux
	if linux.Overhead != nil || linux.Resources.CpuShares != minShares {
		t.Errorf("%d shares, and the overhead %v", linux.Resources.CpuShares, linux.Overhead)
	}
	pod.Spec.Overhead = v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}
	if got := mustSandbox(t, testNode(t), pod).Linux.Overhead.GetCpuShares(); got != sharesPerCore {
		t.Errorf("%d shares for an overhead of one CPU", got)
	}
}

func TestUnsupported(t *testing.T) {
	pod := testPod()
	if m := Unsupported(pod); m != "" {
		t.Error(m)
	}
	pod.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "r"}}
	pod.Spec.InitContainers = []v1.Container{{VolumeDevices: []v1.VolumeDevice{{}}}}
	m := Unsupported(pod)
	for _, part := range []string{"not supported by errand: ", "spec.resourceClaims (", "spec.initContainers[0].volumeDevices ("} {
		if !strings.Contains(m, part) {
			t.Error(m)
		}
	}
}
