package crispec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestContainer(t *testing.T) {
	pod := testPod()
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](9)
	c := &pod.Spec.Containers[0]
	c.Command, c.Args, c.WorkingDir, c.TTY, c.Stdin = []string{"run", "$(A)"}, []string{"$(NONE)", "$$(A)"}, "/w", true, true
	got, err := testNode(t).Container(Run{
		Pod: pod, Container: c, Restarts: 2, ImageRef: "sha256:x", User: ImageUser{Name: "app"},
		Env: []EnvVar{{"A", "1"}}, Mounts: []*runtimeapi.Mount{{ContainerPath: "/m"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"run", "1", "$(NONE)", "$(A)"}, append(got.Command, got.Args...)); diff != "" {
		t.Error(diff)
	}
	if got.LogPath != "c/2.log" || got.Metadata.Attempt != 2 || got.Image.Image != "sha256:x" || got.Image.UserSpecifiedImage != "img" ||
		!got.Tty || !got.Stdin || got.WorkingDir != "/w" || len(got.Mounts) != 1 || string(got.Envs[0].Value) != "1" {
		t.Errorf("%v", got)
	}
	if got.Labels["io.kubernetes.container.name"] != "c" || got.Annotations["io.kubernetes.container.restartCount"] != "2" ||
		got.Annotations["io.kubernetes.pod.terminationGracePeriod"] != "9" {
		t.Errorf("%v %v", got.Labels, got.Annotations)
	}
	if sc := got.Linux.SecurityContext; sc.RunAsUser != nil || sc.RunAsUsername != "app" ||
		sc.Seccomp.ProfileType != runtimeapi.SecurityProfile_Unconfined || len(sc.MaskedPaths) == 0 {
		t.Errorf("%v", sc)
	}
}

func TestSecurity(t *testing.T) {
	n := testNode(t)
	n.SeccompDefault, n.SeccompProfileRoot = true, "/seccomp"
	pod := testPod()
	pod.Spec.SecurityContext = &v1.PodSecurityContext{
		RunAsUser: ptr.To[int64](1), FSGroup: ptr.To[int64](2), SupplementalGroupsPolicy: ptr.To(v1.SupplementalGroupsPolicyStrict),
	}
	c := &pod.Spec.Containers[0]
	c.SecurityContext = &v1.SecurityContext{
		RunAsUser: ptr.To[int64](3), RunAsGroup: ptr.To[int64](4), ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities: &v1.Capabilities{Add: []v1.Capability{"NET_ADMIN"}, Drop: []v1.Capability{"ALL"}},
	}
	sc, err := n.security(pod, c, ImageUser{UID: new(int64)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sc.RunAsUser.Value != 3 || sc.RunAsGroup.Value != 4 || !sc.ReadonlyRootfs || !sc.NoNewPrivs || sc.Privileged ||
		sc.Capabilities.AddCapabilities[0] != "NET_ADMIN" || sc.Capabilities.DropCapabilities[0] != "ALL" ||
		!cmp.Equal(sc.SupplementalGroups, []int64{2}) || sc.SupplementalGroupsPolicy != runtimeapi.SupplementalGroupsPolicy_Strict ||
		sc.Seccomp.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault {
		t.Errorf("%v", sc)
	}
	c.SecurityContext = &v1.SecurityContext{
		Privileged:     ptr.To(true),
		SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("p.json")},
		ProcMount:      ptr.To(v1.UnmaskedProcMount),
	}
	if sc, err = n.security(pod, c, ImageUser{}, nil); err != nil {
		t.Fatal(err)
	}
	if sc.RunAsUser.Value != 1 || !sc.Privileged || sc.NoNewPrivs || sc.Seccomp.LocalhostRef != "/seccomp/p.json" || len(sc.MaskedPaths) != 0 {
		t.Errorf("%v", sc)
	}
}

func TestNonRoot(t *testing.T) {
	root, user := ImageUser{UID: new(int64)}, ImageUser{UID: ptr.To[int64](1000)}
	for name, c := range map[string]struct {
		runAs *int64
		image ImageUser
		err   string
	}{
		"image's user":       {nil, user, ""},
		"image is root":      {nil, root, "container has runAsNonRoot and image will run as root"},
		"image's name":       {nil, ImageUser{Name: "app"}, "image has non-numeric user (app), cannot verify user is non-root"},
		"runAsUser":          {ptr.To[int64](5), root, ""},
		"runAsUser 0":        {new(int64), user, "container's runAsUser breaks non-root policy"},
		"image's impossible": {nil, ImageUser{UID: ptr.To[int64](-1)}, "image has an invalid user id (-1)"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.Containers[0].SecurityContext = &v1.SecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: c.runAs}
			_, err := testNode(t).security(pod, &pod.Spec.Containers[0], c.image, nil)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Error(err)
			}
		})
	}
}

// The API's names of signals are understood in all their spellings.
func TestStopSignal(t *testing.T) {
	for name, want := range map[v1.Signal]runtimeapi.Signal{
		v1.SIGINT:          runtimeapi.Signal_SIGNAL_SIGINT,
		v1.SIGUSR1:         runtimeapi.Signal_SIGNAL_SIGUSR1,
		v1.SIGRTMIN:        runtimeapi.Signal_SIGNAL_SIGRTMIN,
		v1.SIGRTMINPLUS3:   runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3,
		v1.SIGRTMAXMINUS14: runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14,
	} {
		if got := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: &name}}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{}}); got != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		t.Errorf("none: %v", got)
	}
}
