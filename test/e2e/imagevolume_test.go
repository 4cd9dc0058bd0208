//go:build e2e

package e2e

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// An image as a volume (KEP-4639): what is in it, what can't be done with it, and that it goes with its pod.
func TestImageVolumes(t *testing.T) {
	var layers []v1.Layer
	for _, files := range [][]registry.File{
		{{Name: "etc/version", Body: []byte("1\n")}, {Name: "bin/run", Mode: 0o755, Body: []byte("#!/bin/sh\necho ran\n")}},
		{{Name: "etc/version", Body: []byte("2\n")}, {Name: "model/weights", Body: []byte("0.5\n")}, {Name: "up", Link: "../../model"}},
	} {
		layer, err := registry.Layer(registry.Owner{}, files...)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer)
	}
	for name, layers := range map[string][]v1.Layer{"two": layers, "one": layers[:1], "none": nil} {
		image, err := registry.ImageOf("", nil, layers...)
		if err != nil {
			t.Fatal(err)
		}
		if err := images.Push("library/data-"+name+":1", image); err != nil {
			t.Fatal(err)
		}
	}
	e := start(t)

	t.Run("files", func(t *testing.T) {
		e := e.with(t)
		out := e.runPod("files", `
  containers:
  - name: work
    image: busybox:latest
    command:
    - sh
    - -c
    - |
      cat /two/etc/version /one/etc/version /weights/weights /version
      ls /none | wc -l
      touch /two/new /one/new 2>&1
      /one/bin/run
      ls /two
    volumeMounts:
    - {name: two, mountPath: /two}
    - {name: one, mountPath: /one}
    - {name: none, mountPath: /none}
    - {name: two, mountPath: /weights, subPath: up}
    - {name: two, mountPath: /version, subPath: etc/version}
  volumes:
  - {name: two, image: {reference: "data-two:1"}}
  - {name: one, image: {reference: "data-one:1", pullPolicy: IfNotPresent}}
  - {name: none, image: {reference: "data-none:1"}}
`)
		wantLines(t, out, `
			2
			1
			0.5
			2
			0
			touch: /two/new: Read-only file system
			touch: /one/new: Read-only file system
			ran
			bin
			etc
			model
			up`)
	})

	t.Run("the image is removed meanwhile", func(t *testing.T) {
		// Not e.with(t): the process is another one afterwards.
		e.applyPod("holds", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait"], volumeMounts: [{name: one, mountPath: /one}]}]
  volumes: [{name: one, image: {reference: "data-one:1"}}]
`)
		e.wait("condition=Ready", "pod/holds")
		remove := func(image string) {
			if out, err := e.errandCommand("image", "rm", image); err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
		}
		remove("data-one:1")
		// As after a crash: the layers are still the pod's.
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.launch()
		e.awaitReady()
		remove("data-none:1") // which looks for what nobody needs
		wantLines(t, e.kubectl("exec", "holds", "--", "cat", "/one/etc/version"), "1")
		e.kubectl("delete", "pod", "holds")
	})

	t.Run("no such image, no such path", func(t *testing.T) {
		e := e.with(t)
		for name, tc := range map[string]struct{ volume, mount, reason, want string }{
			"image": {"absent:1", "", "ImagePullBackOff", `Failed to pull image "absent:1"`},
			"never": {"absent:1, pullPolicy: Never", "", "ErrImageNeverPull", "not present with pull policy of Never"},
			"path":  {"data-two:1", ", subPath: no/such", "CreateContainerError", "ImageVolumeMountFailed: image data-two:1 at /v: the image has no no/such"},
		} {
			e.applyPod("bad-"+name, `
  containers: [{name: work, image: "busybox:latest", command: ["true"], volumeMounts: [{name: v, mountPath: /v`+tc.mount+`}]}]
  volumes: [{name: v, image: {reference: `+tc.volume+`}}]
`)
			e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}="+tc.reason, "pod/bad-"+name)
			if out := e.kubectl("describe", "pod", "bad-"+name); !strings.Contains(out, tc.want) {
				t.Errorf("kubectl describe does not say %q:\n%s", tc.want, out)
			}
			e.kubectl("delete", "pod", "bad-"+name)
		}
	})
}

// kubectl debug (KEP-277): a container beside those of a pod that runs, which may see a container's processes.
func TestDebug(t *testing.T) {
	e := start(t)
	e.applyPod("p", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "exec sleep 12345"]}]
  terminationGracePeriodSeconds: 1
`)
	e.wait("condition=Ready", "pod/p")
	e.kubectl("debug", "p", "--image=busybox:latest", "--target=work", "--container=look", "--profile=general", "--", "sh", "-c", "ps | grep -c '[s]leep 12345'; hostname")
	e.wait("jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0", "pod/p")
	wantLines(t, e.kubectl("logs", "p", "-c", "look"), "1\np")
	if out := e.kubectl("describe", "pod", "p"); !strings.Contains(out, "Ephemeral Containers:") || strings.Contains(out, "Warning") {
		t.Errorf("kubectl describe says:\n%s", out)
	}
	// A second one, with which one can talk, doesn't hold up the pod's end.
	e.kubectl("debug", "p", "--image=busybox:latest", "--container=talk", "--profile=general", "-i", "--attach=false", "--", "cat")
	e.wait("jsonpath={.status.ephemeralContainerStatuses[1].state.running}", "pod/p")
	wantLines(t, e.kubectl("exec", "p", "-c", "talk", "--", "echo", "hello"), "hello")
	e.kubectl("delete", "pod", "p", "--timeout=60s")
}
