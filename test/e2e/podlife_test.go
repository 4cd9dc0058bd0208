//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"errand.dev/errand/test/registry"
)

// How pods are scheduled, started, run and ended.
func TestPodLife(t *testing.T) {
	e := start(t)
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")

	t.Run("events of a healthy pod", func(t *testing.T) {
		e := e.with(t)
		e.runPod("healthy", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
		wantLines(t, e.describedEvents("healthy"), `
			Type   Reason    Age   From              Message
			----   ------    ----  ----              -------
			Normal Scheduled <age> default-scheduler Successfully assigned default/healthy to `+node+`
			Normal Pulling   <age> kubelet           spec.containers{work}: Pulling image "busybox:latest"
			Normal Pulled    <age> kubelet           spec.containers{work}: Successfully pulled image "busybox:latest" in <duration> (<duration> including waiting). Image size: <number> bytes.
			Normal Created   <age> kubelet           spec.containers{work}: Container created
			Normal Started   <age> kubelet           spec.containers{work}: Container started`)
		e.runPod("again", `
  containers: [{name: work, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: ["true"]}]
`)
		want := `Container image "busybox:latest" already present on machine and can be accessed by the pod`
		if got := e.awaitEvent("again", "Pulled"); got != want {
			t.Errorf("with the image there, the event Pulled is %q, want %q", got, want)
		}
	})

	t.Run("no node for it", func(t *testing.T) {
		e := e.with(t)
		for name, tc := range map[string]struct{ spec, why string }{
			"selective": {"nodeSelector: {disk: round}\n  containers: [{name: work, image: busybox}]", "node(s) didn't match Pod's node affinity/selector"},
			"greedy":    {"containers: [{name: work, image: busybox, resources: {requests: {cpu: 1000}}}]", "Insufficient cpu"},
		} {
			e.applyPod(name, "\n  "+tc.spec+"\n")
			want := "0/1 nodes are available: 1 " + tc.why + ". preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
			if got := e.awaitEvent(name, "FailedScheduling"); got != want {
				t.Errorf("pod %s: FailedScheduling says %q, want %q", name, got, want)
			}
			e.wait("condition=PodScheduled=False", "pod/"+name)
			e.kubectl("delete", "pod", name)
		}
	})

	t.Run("init containers in order", func(t *testing.T) {
		e := e.with(t)
		mount := "volumeMounts: [{name: disk, mountPath: /disk}]"
		out := e.runPod("prepared", fmt.Sprintf(`
  initContainers:
  - {name: first, image: "busybox:latest", command: [sh, -c, "sleep 0.2; echo first >> /disk/list"], %[1]s}
  - {name: second, image: "busybox:latest", command: [sh, -c, "echo second >> /disk/list"], %[1]s}
  containers:
  - {name: work, image: "busybox:latest", command: [cat, /disk/list], %[1]s}
  volumes: [{name: disk, emptyDir: {}}]
`, mount))
		wantLines(t, out, "first\nsecond")
		for _, c := range e.podStatus("prepared").InitContainerStatuses {
			if end := c.State.Terminated; end == nil || end.ExitCode != 0 || end.Reason != "Completed" {
				t.Errorf("init container %s is %+v", c.Name, c.State)
			}
		}
	})

	t.Run("a memory limit", func(t *testing.T) {
		e := e.with(t)
		e.applyPod("hungry", `
  containers: [{name: work, image: "busybox:latest", command: [tail, /dev/zero], resources: {limits: {memory: 16Mi}}}]
`)
		e.wait("jsonpath={.status.phase}=Failed", "pod/hungry")
		end := e.podStatus("hungry").ContainerStatuses[0].State.Terminated
		if end == nil || end.Reason != "OOMKilled" || end.ExitCode != 137 {
			t.Errorf("its end is %+v", end)
		}
	})

	t.Run("SIGTERM, then SIGKILL", func(t *testing.T) {
		e := e.with(t)
		for name, tc := range map[string]struct {
			trap string
			code int32
		}{
			"obeys":   {"exit 5", 5},
			"ignores": {"", 137},
		} {
			g := newGate(t)
			manifest := podManifest(name, fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "trap '%s' TERM; %s; sleep 3600 & wait; wait"], volumeMounts: [%s]}]
  volumes: [%s]
`, tc.trap, knockGate, gateMount, g.volume()))
			manifest = strings.Replace(manifest, "terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 1", 1)
			// With a finalizer of the test's the pod is there to be looked at.
			e.apply(strings.Replace(manifest, "metadata: {", "metadata: {finalizers: [example.com/look], ", 1))
			g.arrived()
			e.kubectl("delete", "pod", name, "--wait=false")
			e.wait("jsonpath={.status.containerStatuses[0].state.terminated.exitCode}="+fmt.Sprint(tc.code), "pod/"+name)
			if got, want := e.awaitEvent(name, "Killing"), "Stopping container work"; got != want {
				t.Errorf("pod %s: the event Killing is %q, want %q", name, got, want)
			}
			e.kubectl("patch", "pod", name, "--patch", `{"metadata":{"finalizers":null}}`)
			e.wait("delete", "pod/"+name)
		}
	})

	t.Run("CrashLoopBackOff", func(t *testing.T) {
		e := e.with(t)
		e.apply(strings.Replace(podManifest("crashes", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "exit 3"]}]
`), "Never", "Always", 1))
		e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff", "pod/crashes")
		status := e.podStatus("crashes").ContainerStatuses[0]
		if last := status.LastTerminationState.Terminated; status.RestartCount < 1 || last == nil || last.ExitCode != 3 {
			t.Errorf("its status is %+v", status)
		}
		uid := e.kubectl("get", "pod", "crashes", "-o", "jsonpath={.metadata.uid}")
		if got, want := e.awaitEvent("crashes", "BackOff"), "Back-off restarting failed container work in pod crashes_default("+uid+")"; got != want {
			t.Errorf("the event BackOff is %q, want %q", got, want)
		}
		e.kubectl("delete", "pod", "crashes")
	})

	t.Run("shareProcessNamespace", func(t *testing.T) {
		e := e.with(t)
		for name, shared := range map[string]bool{"together": true, "apart": false} {
			g := newGate(t)
			mounts := "volumeMounts: [" + gateMount + "]"
			// The one lets the other look for it.
			e.applyPod(name, fmt.Sprintf(`
  shareProcessNamespace: %t
  containers:
  - {name: one, image: "busybox:latest", command: [sh, -c, "`+knockGate+`; sleep 3600; true", the-other-one], %s}
  - {name: two, image: "busybox:latest", command: [sh, -c, "`+passGate+`; ps"], %s}
  volumes: [%s]
`, shared, mounts, mounts, g.volume()))
			e.wait(`jsonpath={.status.containerStatuses[?(@.name=="two")].state.terminated.exitCode}=0`, "pod/"+name)
			out := e.kubectl("logs", name, "-c", "two")
			if strings.Contains(out, "the-other-one") != shared {
				t.Errorf("shareProcessNamespace %t: it sees the processes\n%s", shared, out)
			}
			e.kubectl("delete", "pod", name)
		}
	})

	t.Run("host name and hosts file", func(t *testing.T) {
		e := e.with(t)
		out := e.runPod("named", `
  hostAliases: [{ip: 192.0.2.1, hostnames: [elsewhere.example]}]
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "hostname; cat /etc/hosts"]}]
`)
		wantLines(t, out, `
			named
			# Kubernetes-managed hosts file.
			127.0.0.1 localhost
			::1 localhost ip6-localhost ip6-loopback
			fe00::0 ip6-localnet
			fe00::0 ip6-mcastprefix
			fe00::1 ip6-allnodes
			fe00::2 ip6-allrouters
			`+e.podStatus("named").PodIP+` named
			# Entries added by HostAliases.
			192.0.2.1 elsewhere.example`)
		out = e.runPod("renamed", `
  hostname: other
  containers: [{name: work, image: "busybox:latest", command: [hostname]}]
`)
		wantLines(t, out, "other")
	})

	t.Run("RuntimeClass", func(t *testing.T) {
		e := e.with(t)
		e.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: by-name}\nhandler: runc\n")
		e.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: astray}\nhandler: nosuch\n")
		wantLines(t, e.runPod("classed", `
  runtimeClassName: by-name
  containers: [{name: work, image: "busybox:latest", command: [echo, ran]}]
`), "ran")
		e.applyPod("stray", `
  runtimeClassName: astray
  containers: [{name: work, image: "busybox:latest", command: [echo, ran]}]
`)
		if got, want := e.awaitEvent("stray", "FailedCreatePodSandBox"), `no runtime for "nosuch" is configured`; !strings.HasPrefix(got, "Failed to create pod sandbox: ") || !strings.Contains(got, want) {
			t.Errorf("the event FailedCreatePodSandBox is %q, want it to end with %q", got, want)
		}
		e.kubectl("delete", "pod", "stray")
		refusal := e.refused(podManifest("classless", `
  runtimeClassName: nosuch
  containers: [{name: work, image: "busybox:latest"}]
`), "create", "-f", "-")
		if want := `pod rejected: RuntimeClass "nosuch" not found`; !strings.Contains(refusal, want) {
			t.Errorf("a RuntimeClass that doesn't exist: %q, want %q", refusal, want)
		}
	})

	t.Run("imagePullSecrets", func(t *testing.T) {
		e := e.with(t)
		small, err := registry.BusyboxImage(registry.Owner{})
		if err != nil {
			t.Fatal(err)
		}
		if err := images.Push("private/busybox:latest", small); err != nil {
			t.Fatal(err)
		}
		images.AddFault(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/private/") }, registry.Always, registry.BasicAuth("me", "my-password"))
		t.Cleanup(images.ClearFaults)
		for secret, password := range map[string]string{"right": "my-password", "wrong": "guess"} {
			e.kubectl("create", "secret", "docker-registry", secret, "--docker-server="+images.Addr(), "--docker-username=me", "--docker-password="+password)
		}
		spec := `
  imagePullSecrets: [{name: %s}]
  containers: [{name: work, image: "` + images.Addr() + `/private/busybox:latest", imagePullPolicy: Always, command: [echo, pulled]}]
`
		e.applyPod("stranger", fmt.Sprintf(spec, "wrong"))
		e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff", "pod/stranger")
		if got := e.awaitEvent("stranger", "Failed"); !strings.Contains(got, "401") && !strings.Contains(got, "authorization failed") {
			t.Errorf("with a wrong password the event Failed is %q", got)
		}
		e.kubectl("delete", "pod", "stranger")
		wantLines(t, e.runPod("known", fmt.Sprintf(spec, "right")), "pulled")
	})
}

// describedEvents are the events as kubectl describe pod lists them.
func (e *errand) describedEvents(pod string) string {
	e.t.Helper()
	_, events, found := strings.Cut(e.kubectl("describe", "pod", pod), "\nEvents:\n")
	if !found {
		e.t.Fatalf("kubectl describe pod %s lists no events", pod)
	}
	return events
}
