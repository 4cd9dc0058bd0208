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
	for want, spec := range map[string]v1.PodSpec{
		"":                  {OS: &v1.PodOS{Name: v1.Linux}},
		"PodOSNotSupported": {OS: &v1.PodOS{Name: v1.Windows}},
		"SysctlForbidden":   {SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "kernel.sem"}}}},
	} {
		reason, message := Inadmissible(t.Context(), &v1.Pod{Spec: spec})
		if reason != want || (message == "") != (want == "") {
			t.Errorf("%q: %s, want %q", reason, message, want)
		}
	}
}
