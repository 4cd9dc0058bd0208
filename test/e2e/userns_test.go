//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Pods with hostUsers: false (KEP-127): root in them is nobody on the host, of each pod another one, while they see files as any
// pod does.
func TestUserNamespaces(t *testing.T) {
	e := start(t)
	if out := e.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.runtimeHandlers[0].features.userNamespaces}"); out != "true" {
		t.Fatalf("the node announces user namespaces as %q", out)
	}

	t.Run("a Job of pods", func(t *testing.T) {
		e := e.with(t)
		e.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: mapped}
spec:
  completions: 4
  parallelism: 4
  template:
    spec:
      hostUsers: false
      restartPolicy: Never
      containers:
      - name: main
        image: busybox:latest
        command: [sh, -c, "cat /proc/self/uid_map; id -u"]
`)
		e.wait("condition=Complete", "job/mapped")
		seen := map[int]bool{}
		for _, pod := range e.pods("mapped") {
			fields := strings.Fields(e.kubectl("logs", pod.Name))
			if len(fields) != 4 || fields[0] != "0" || fields[2] != "65536" || fields[3] != "0" {
				t.Fatalf("the pod wrote %q", fields)
			}
			first, err := strconv.Atoi(fields[1])
			if err != nil || first < 65536 || seen[first] {
				t.Errorf("IDs from %s, after %v", fields[1], seen)
			}
			seen[first] = true
		}
		if len(seen) != 4 {
			t.Errorf("%d pods", len(seen))
		}
	})

	t.Run("volumes", func(t *testing.T) {
		e := e.with(t)
		host := t.TempDir()
		for dir := host; dir != "/tmp"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		e.kubectl("create", "configmap", "settings", "--from-literal=color=blue")
		e.kubectl("create", "secret", "generic", "key", "--from-literal=word=open")
		out := e.runPod("volumes", `
  hostUsers: false
  securityContext: {fsGroup: 3000}
  initContainers:
  - name: first
    image: busybox:latest
    securityContext: {runAsUser: 1000}
    command: [sh, -c, "echo from-init > /empty/init"]
    volumeMounts: [{name: empty, mountPath: /empty}]
  containers:
  - name: work
    image: busybox:latest
    command:
    - sh
    - -c
    - |
      stat -c '%u:%g' /empty/init /settings/..data/color /key/..data/word /memory /host /etc/hosts
      cat /settings/color /key/word && echo
      touch /empty/f /memory/f && chown 5:6 /memory/f && stat -c '%u:%g' /memory/f
      mkdir /host/d && touch /host/d/f && chown 1234:55 /host/d/f
      cat /var/run/secrets/kubernetes.io/serviceaccount/namespace && echo
      cat /sub
    volumeMounts:
    - {name: empty, mountPath: /empty}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: key, mountPath: /key}
    - {name: host, mountPath: /host}
    - {name: empty, mountPath: /sub, subPath: init}
  volumes:
  - {name: empty, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key}}
  - {name: host, hostPath: {path: `+host+`}}
`)
		wantLines(t, out, `
			1000:3000
			0:3000
			0:3000
			0:3000
			0:0
			0:0
			blueopen
			5:6
			default
			from-init`)
		st, err := os.Stat(filepath.Join(host, "d/f"))
		if err != nil {
			t.Fatal(err)
		}
		if got := ownerOf(st); got != 1234 {
			t.Errorf("on the host the file is of user %d, want 1234", got)
		}
	})

	t.Run("a mount that can't be mapped", func(t *testing.T) {
		e := e.with(t)
		ends, says := "{.status.containerStatuses[0].state.waiting.reason}=CreateContainerError", "can't map the owners of files on proc to a user namespace's"
		if ctrd != nil { // there it is runc that says so, when the container is started
			ends, says = "{.status.phase}=Failed", "idmap"
		}
		if asCRIO() { // which leaves nothing of it
			ends = "{.status.containerStatuses[0].state.waiting.reason}=RunContainerError"
		}
		e.applyPod("proc", `
  hostUsers: false
  containers: [{name: work, image: "busybox:latest", command: ["true"], volumeMounts: [{name: proc, mountPath: /host-proc}]}]
  volumes: [{name: proc, hostPath: {path: /proc}}]
`)
		e.wait("jsonpath="+ends, "pod/proc")
		if out := e.kubectl("describe", "pod", "proc"); !strings.Contains(out, says) {
			t.Errorf("kubectl describe says:\n%s", out)
		}
		e.kubectl("delete", "pod", "proc")
	})

	t.Run("a restart of errand", func(t *testing.T) {
		// Not e.with(t): the process is another one afterwards.
		e.apply(`
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  hostUsers: false
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: work, image: "busybox:latest", command: [sleep, "1234567"]}
  - {name: ends, image: "busybox:latest", command: [sh, -c, "cat /proc/self/uid_map; mkfifo /tmp/go; cat /tmp/go"]}
`)
		e.wait("condition=Ready", "pod/stays")
		before := e.kubectl("exec", "stays", "-c", "work", "--", "cat", "/proc/self/uid_map")
		wantHostUser(t, before, "sleep\x001234567\x00")
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.launch()
		e.awaitReady()
		if after := e.kubectl("exec", "stays", "-c", "work", "--", "cat", "/proc/self/uid_map"); after != before {
			t.Errorf("the pod's IDs were %q, and are %q after errand's restart", before, after)
		}
		// Another run of the container, and another pod: the former has the same IDs, the latter others.
		e.kubectl("exec", "stays", "-c", "ends", "--", "sh", "-c", "echo > /tmp/go")
		e.wait("jsonpath={.status.containerStatuses[?(@.name=='ends')].restartCount}=1", "pod/stays")
		e.wait("condition=Ready", "pod/stays")
		if again := e.kubectl("logs", "stays", "-c", "ends"); again != before {
			t.Errorf("the pod's IDs were %q, and are %q in a container's second run", before, again)
		}
		if other := e.runPod("other", `
  hostUsers: false
  containers: [{name: work, image: "busybox:latest", command: [cat, /proc/self/uid_map]}]
`); other == before {
			t.Errorf("two pods have the IDs %q", other)
		}
		e.kubectl("delete", "pod", "stays", "other")
	})
}

func ownerOf(st os.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Uid }

// wantHostUser finds the process with a command line on the host, and wants it to be of the first user in a uid_map.
func wantHostUser(t *testing.T, uidMap, command string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || string(b) != command {
			continue // of another, or gone
		}
		st, err := os.Stat(filepath.Dir(f))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(ownerOf(st)), strings.Fields(uidMap)[1]; got != want {
			t.Errorf("on the host the process is of user %s, want %s", got, want)
		}
		return
	}
	t.Errorf("no process runs %q", command)
}
