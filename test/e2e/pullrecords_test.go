//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"errand.dev/errand/test/registry"
)

// An image that one pod has pulled with a secret is no other pod's for being
// there: neither before nor after a restart, nor after a crash. What an
// administrator pulls is everybody's.
func TestPrivateImages(t *testing.T) {
	busybox, err := registry.BusyboxImage(registry.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("vault/busybox:1", busybox); err != nil {
		t.Fatal(err)
	}
	inVault := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/vault/") }
	images.AddFault(inVault, registry.Always, registry.BasicAuth("me", "my-password"))
	t.Cleanup(images.ClearFaults)
	private := images.Addr() + "/vault/busybox:1"

	e := start(t)
	for secret, password := range map[string]string{"right": "my-password", "also": "my-password", "wrong": "guess"} {
		e.kubectl("create", "secret", "docker-registry", secret, "--docker-server="+images.Addr(), "--docker-username=me", "--docker-password="+password)
	}
	spec := func(secret, image, policy string) string {
		return fmt.Sprintf(`
  imagePullSecrets: [{name: %s}]
  containers: [{name: work, image: %q, imagePullPolicy: %s, command: [echo, ran]}]
`, secret, image, policy)
	}
	wantLines(t, e.runPod("first", spec("right", private, "IfNotPresent")), "ran")

	who := func(t *testing.T, when string) {
		e := e.with(t)
		name := func(s string) string { return when + "-" + s }
		// Neither asks the registry: the secrets are known to serve.
		asked := func() int { return images.Count("HEAD", "/vault/") + images.Count("GET", "/vault/") }
		before := asked()
		wantLines(t, e.runPod(name("same"), spec("right", private, "IfNotPresent")), "ran")
		wantLines(t, e.runPod(name("alike"), spec("also", private, "Never")), "ran")
		if n := asked() - before; n != 0 {
			t.Errorf("%s: %d requests for an image that is present and the pods' own", when, n)
		}
		e.applyPod(name("nobody"), spec("nosuch", private, "IfNotPresent"))
		e.applyPod(name("stranger"), spec("wrong", private, "IfNotPresent"))
		e.applyPod(name("sly"), spec("wrong", private, "Never"))
		e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff", "pod/"+name("nobody"), "pod/"+name("stranger"))
		e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull", "pod/"+name("sly"))
		if got := e.describedEvents(name("sly")); strings.Contains(got, "already present") || !strings.Contains(got, "is not present with pull policy of Never") {
			t.Errorf("%s: a pod that may not have an image learns whether it is there:\n%s", when, got)
		}
		e.kubectl("delete", "pod", name("nobody"), name("stranger"), name("sly"))
	}
	t.Run("after the pull", func(t *testing.T) { who(t, "pulled") })
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.start()
	t.Run("after a restart", func(t *testing.T) { who(t, "restarted") })
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.start()
	t.Run("after a crash", func(t *testing.T) { who(t, "crashed") })

	t.Run("removed, and pulled by the administrator", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("delete", "pod", "--all")
		if out, err := e.errandCommand("image", "rm", private); err != nil {
			t.Fatal(err, out)
		}
		images.ClearFaults()
		if out, err := e.errandCommand("image", "pull", private); err != nil {
			t.Fatal(err, out)
		}
		wantLines(t, e.runPod("anyone", spec("nosuch", private, "Never")), "ran")
	})
}

// An image from an archive is everybody's: no pod has brought it.
func TestLoadedImages(t *testing.T) {
	e := start(t)
	archive := filepath.Join(t.TempDir(), "loaded.tar")
	writeDockerArchive(t, archive, "vault.example/loaded:1")
	if out, err := e.errandCommand("image", "load", archive); err != nil {
		t.Fatal(err, out)
	}
	e.applyPod("loaded", `
  containers: [{name: work, image: "vault.example/loaded:1", imagePullPolicy: Never, command: [none]}]
`)
	// It has no program: what counts is that the pod got it.
	if got := e.awaitEvent("loaded", "Pulled"); !strings.Contains(got, "already present on machine and can be accessed by the pod") {
		t.Errorf("a loaded image: %q", got)
	}
}
