package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestJudgeRuntime(t *testing.T) {
	version := &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "v2.4.2"}
	for _, tc := range []struct {
		name       string
		conditions []*runtimeapi.RuntimeCondition
		want       Status
		detail     string
	}{
		{"ready", []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, {Type: "ContainerdHasNoDeprecationWarnings"}}, OK, "containerd v2.4.2, with the handlers kata, runc"},
		{"no network", []*runtimeapi.RuntimeCondition{{Type: runtimeapi.NetworkReady, Message: "cni config uninitialized"}}, Failure, "cni config uninitialized"},
		{"not ready", []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Message: "why"}}, Failure, "why"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := judgeRuntime(version, &runtimeapi.StatusResponse{
				Status:          &runtimeapi.RuntimeStatus{Conditions: tc.conditions},
				RuntimeHandlers: []*runtimeapi.RuntimeHandler{{}, {Name: "kata"}, {Name: "runc"}},
			})
			if got.Status != tc.want || !strings.Contains(got.Detail, tc.detail) || (got.Remedy == "") != (tc.want == OK) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// With a runtime of the user's own, nothing is said of what that brings itself.
func TestChecksOfARuntime(t *testing.T) {
	absent := "unix://" + filepath.Join(t.TempDir(), "s")
	for endpoint, names := range map[string]map[string]bool{
		"":     {"OCI runtime": true, "pod network": true, "container runtime": false},
		absent: {"OCI runtime": false, "pod network": false, "container runtime": true},
	} {
		has := map[string]bool{}
		for _, c := range checks(Host{RuntimeEndpoint: endpoint}) {
			has[c.name] = true
		}
		for name, want := range names {
			if has[name] != want {
				t.Errorf("endpoint %q: check %q is %v, want %v", endpoint, name, has[name], want)
			}
		}
	}
	if got := containerRuntime(t.Context(), Host{RuntimeEndpoint: absent, ImageEndpoint: absent}); got.Status != Failure || !strings.Contains(got.Detail, "no such file") {
		t.Errorf("of a runtime that isn't there: %+v", got)
	}
}
