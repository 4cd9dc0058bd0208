package crispec

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestForbiddenSysctls(t *testing.T) {
	for _, tc := range []struct {
		name        string
		sysctl      string
		hostNetwork bool
		want        string
	}{
		{name: "none"},
		{name: "safe", sysctl: "net.ipv4.ip_unprivileged_port_start"},
		{name: "safe, with slashes", sysctl: "kernel/shm_rmid_forced"},
		{name: "namespaced, but not safe", sysctl: "kernel.msgmax", want: `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{name: "of the host", sysctl: "kernel.panic", want: "not allowlisted"},
		{name: "of the host's network", sysctl: "net.ipv4.tcp_syncookies", hostNetwork: true, want: "not allowed with host Net enabled"},
	} {
		pod := &v1.Pod{Spec: v1.PodSpec{HostNetwork: tc.hostNetwork}}
		if tc.sysctl != "" {
			pod.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: tc.sysctl, Value: "1"}}}
		}
		got := forbiddenSysctls(t.Context(), pod)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestInadmissible(t *testing.T) {
	profile := func(kind v1.AppArmorProfileType) *v1.AppArmorProfile { return &v1.AppArmorProfile{Type: kind} }
	containers := func(kinds ...v1.AppArmorProfileType) (list []v1.Container) {
		for _, k := range kinds {
			list = append(list, v1.Container{Name: "c", SecurityContext: &v1.SecurityContext{AppArmorProfile: profile(k)}})
		}
		return list
	}
	for name, tc := range map[string]struct {
		node Node
		spec v1.PodSpec
		want string
	}{
		"of Linux":             {Node{}, v1.PodSpec{OS: &v1.PodOS{Name: v1.Linux}, Containers: []v1.Container{{}}}, ""},
		"of Windows":           {Node{}, v1.PodSpec{OS: &v1.PodOS{Name: v1.Windows}}, "PodOSNotSupported"},
		"an unsafe sysctl":     {Node{}, v1.PodSpec{SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "kernel.sem"}}}}, "SysctlForbidden"},
		"without AppArmor":     {Node{}, v1.PodSpec{Containers: containers("Unconfined", "RuntimeDefault")}, "AppArmor"},
		"an init container":    {Node{}, v1.PodSpec{InitContainers: containers("Localhost")}, "AppArmor"},
		"the pod's profile":    {Node{}, v1.PodSpec{SecurityContext: &v1.PodSecurityContext{AppArmorProfile: profile("RuntimeDefault")}, Containers: []v1.Container{{}}}, "AppArmor"},
		"not the pod's":        {Node{}, v1.PodSpec{SecurityContext: &v1.PodSecurityContext{AppArmorProfile: profile("RuntimeDefault")}, Containers: containers("Unconfined")}, ""},
		"unconfined":           {Node{}, v1.PodSpec{Containers: containers("Unconfined")}, ""},
		"where AppArmor holds": {Node{AppArmor: true}, v1.PodSpec{Containers: containers("RuntimeDefault", "Localhost")}, ""},
	} {
		reason, message := tc.node.Inadmissible(t.Context(), &v1.Pod{Spec: tc.spec})
		if reason != tc.want || (message == "") != (tc.want == "") {
			t.Errorf("%s: %q: %s, want %q", name, reason, message, tc.want)
		}
	}
}
