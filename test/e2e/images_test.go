//go:build e2e

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"errand.dev/errand/test/registry"
)

// What the machine's policy.json doesn't let in is refused, and the pod says why.
func TestSignaturePolicy(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {
		"signed.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/key"}]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, "--signature-policy="+policy)
	e.kubectl("run", "signed", "--image=signed.example/team/x:1", "--restart=Never", "--", "true")
	e.wait(`jsonpath={.status.containerStatuses[0].state.waiting.reason}=SignatureValidationFailed`, "pod/signed")
	out := e.kubectl("describe", "pod", "signed")
	if want := policy + ` wants a signature of signed.example/team/x:1 (transport docker, scope "signed.example": signedBy), and errand verifies none`; !strings.Contains(out, want) {
		t.Errorf("kubectl describe does not say %q:\n%s", want, out)
	}
	wantLines(t, e.runPod("unsigned", `
  containers: [{name: work, image: "busybox:latest", command: [echo, ran]}]
`), "ran")
}

// Images and commands that can't be had or run: what a user sees of them.
func TestBadImages(t *testing.T) {
	e := start(t)

	wrongArch, err := registry.WrongArch(registry.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/foreign:latest", wrongArch); err != nil {
		t.Fatal(err)
	}
	small, err := registry.Small(registry.Owner{}, "spoilt")
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/spoilt:latest", small); err != nil {
		t.Fatal(err)
	}
	layers, err := small.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	images.AddFault(registry.Blob(digest.Hex), registry.Always, registry.Corrupt(0))
	t.Cleanup(images.ClearFaults)
	// A port where nobody listens.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		image, want string
	}{
		"no such image":      {"nosuch:latest", "not found"},
		"registry down":      {nobody + "/x:latest", "connection refused"},
		"corrupt layer":      {"spoilt:latest", "digest"},
		"wrong architecture": {"foreign:latest", "no match for platform in manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.with(t)
			pod := "bad-" + strings.ReplaceAll(name, " ", "-")
			e.kubectl("run", pod, "--image="+tc.image, "--restart=Never", "--image-pull-policy=Always", "--", "true")
			e.wait(`jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff`, "pod/"+pod)
			out := e.kubectl("describe", "pod", pod)
			for _, want := range []string{"Failed to pull image \"" + tc.image + "\"", tc.want, "Back-off pulling image"} {
				if !strings.Contains(out, want) {
					t.Errorf("kubectl describe does not say %q:\n%s", want, out)
				}
			}
			e.kubectl("delete", "pod", pod)
		})
	}

	t.Run("never pulled", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("run", "never", "--image=absent:latest", "--restart=Never", "--image-pull-policy=Never", "--", "true")
		e.wait(`jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull`, "pod/never")
		e.kubectl("delete", "pod", "never")
	})

	t.Run("no such command", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("run", "nosuch", "--image=busybox:latest", "--restart=Never", "--image-pull-policy=IfNotPresent", "--command", "--", "nosuch-command")
		e.wait("jsonpath={.status.phase}=Failed", "pod/nosuch")
		out := e.kubectl("describe", "pod", "nosuch")
		for _, want := range []string{"StartError", "Exit Code:    128", `exec: "nosuch-command": executable file not found in $PATH`} {
			if !strings.Contains(out, want) {
				t.Errorf("kubectl describe does not say %q:\n%s", want, out)
			}
		}
	})
}
