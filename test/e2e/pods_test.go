//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// What a pod's environment and volumes are made from.
func TestPodInputs(t *testing.T) {
	e := start(t)
	e.kubectl("create", "configmap", "conf", "--from-literal=a=conf-a", "--from-literal=b=conf-b")
	e.kubectl("create", "secret", "generic", "hidden", "--from-literal=key=hidden-key")

	t.Run("environment", func(t *testing.T) {
		e := e.with(t)
		out := e.runPod("env", `
  containers:
  - name: work
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "env | grep ^T_ | sort"]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    envFrom:
    - {prefix: T_CONF_, configMapRef: {name: conf}}
    - {prefix: T_HIDDEN_, secretRef: {name: hidden}}
    env:
    - {name: T_A, value: plain}
    - {name: T_B, value: "$(T_A) $$(T_A) $(T_NONE)"}
    - {name: T_CONF_b, value: "env wins"}
    - {name: T_D, valueFrom: {configMapKeyRef: {name: conf, key: a}}}
    - {name: T_E, valueFrom: {configMapKeyRef: {name: absent, key: a, optional: true}}}
    - {name: T_F, valueFrom: {secretKeyRef: {name: hidden, key: key}}}
    - {name: T_G, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: T_H, valueFrom: {fieldRef: {fieldPath: "metadata.labels['colour']"}}}
    - {name: T_I, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: T_J, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: T_K, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
`)
		wantLines(t, out, `
			T_A=plain
			T_B=plain $(T_A) $(T_NONE)
			T_CONF_a=conf-a
			T_CONF_b=env wins
			T_D=conf-a
			T_F=hidden-key
			T_G=env
			T_H=red
			T_HIDDEN_key=hidden-key
			T_I=`+e.kubectl("get", "pod", "env", "-o", "jsonpath={.status.podIP}")+`
			T_J=500
			T_K=67108864`)
	})

	t.Run("emptyDir", func(t *testing.T) {
		e := e.with(t)
		e.applyPod("shared", `
  initContainers:
  - {name: make, image: "busybox:latest", command: [mkfifo, /disk/pipe], volumeMounts: [{name: disk, mountPath: /disk}]}
  containers:
  - {name: write, image: "busybox:latest", command: [sh, -c, "echo from the other > /disk/pipe"], volumeMounts: [{name: disk, mountPath: /disk}]}
  - name: read
    image: busybox:latest
    command: [sh, -c, "cat /disk/pipe; grep -o ' /memory tmpfs' /proc/mounts; df -k /memory | tail -1 | awk '{print $2}'"]
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
`)
		e.wait("jsonpath={.status.phase}=Succeeded", "pod/shared")
		wantLines(t, e.kubectl("logs", "shared", "-c", "read"), "from the other\n/memory tmpfs\n1024")
	})

	t.Run("configMap, secret, downwardAPI", func(t *testing.T) {
		e := e.with(t)
		out := e.runPod("files", `
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "cd /conf; grep . *; cd /hidden; grep . *; stat -L -c '%a %n' *; cd /down; cat *; echo; touch /conf/new 2>&1 || true"]
    volumeMounts: [{name: conf, mountPath: /conf}, {name: hidden, mountPath: /hidden}, {name: down, mountPath: /down}]
  volumes:
  - {name: conf, configMap: {name: conf}}
  - {name: hidden, secret: {secretName: hidden, defaultMode: 0400, items: [{key: key, path: one}, {key: key, path: two, mode: 0440}]}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
`)
		wantLines(t, out, `
			a:conf-a
			b:conf-b
			one:hidden-key
			two:hidden-key
			400 one
			440 two
			colour="red"
			touch: /conf/new: Read-only file system`)
	})

	t.Run("projected, with a token", func(t *testing.T) {
		e := e.with(t)
		out := e.runPod("projected", `
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "cd /all; cat conf/a; echo; cat name; echo; cat token; echo; cat /var/run/secrets/kubernetes.io/serviceaccount/token"]
    volumeMounts: [{name: all, mountPath: /all}]
  volumes:
  - name: all
    projected:
      sources:
      - {configMap: {name: conf, items: [{key: a, path: conf/a}]}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
      - {serviceAccountToken: {audience: elsewhere, path: token}}
`)
		got := lines(out)
		if len(got) != 4 || got[0] != "conf-a" || got[1] != "projected" {
			t.Fatalf("the pod read:\n%s", out)
		}
		review, err := e.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authv1.TokenReview{
			Spec: authv1.TokenReviewSpec{Token: got[2], Audiences: []string{"elsewhere"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		user := review.Status.User
		if pod := user.Extra["authentication.kubernetes.io/pod-name"]; !review.Status.Authenticated || user.Username != "system:serviceaccount:default:default" || !slices.Equal(pod, authv1.ExtraValue{"projected"}) {
			t.Errorf("a review of the token says %+v", review.Status)
		}
		// The token for elsewhere is none for the API; the one that every pod has is.
		wantLines(t, e.kubectlAs(got[3], "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"), "system:serviceaccount:default:default")
		if r := e.tryAs(got[2], "auth", "whoami"); r.Code == 0 || !strings.Contains(r.Stderr, "Unauthorized") && !strings.Contains(r.Stderr, "must be logged in") {
			t.Errorf("the API takes a token for another audience: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})

	t.Run("hostPath", func(t *testing.T) {
		e := e.with(t)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from the host\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out := e.runPod("host", fmt.Sprintf(`
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "cat /host/in; echo from the pod > /host/made/out"]
    volumeMounts: [{name: host, mountPath: /host}, {name: made, mountPath: /host/made}]
  volumes:
  - {name: host, hostPath: {path: %q, type: Directory}}
  - {name: made, hostPath: {path: %q, type: DirectoryOrCreate}}
`, dir, filepath.Join(dir, "made")))
		wantLines(t, out, "from the host")
		if b, err := os.ReadFile(filepath.Join(dir, "made", "out")); err != nil || string(b) != "from the pod\n" {
			t.Errorf("the host has %q, %v", b, err)
		}
	})

	// What is mounted below a volume is read-only as well, where that is asked for.
	t.Run("recursively read-only", func(t *testing.T) {
		e := e.with(t)
		dir := t.TempDir()
		below := filepath.Join(dir, "below")
		if err := errors.Join(os.Mkdir(below, 0o755), unix.Mount("tmpfs", below, "tmpfs", 0, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(below, 0); err != nil {
				t.Error(err)
			}
		})
		out := e.runPod("recursive", fmt.Sprintf(`
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "for d in /plain /possible /enabled; do touch $d/below/x 2>/dev/null && echo $d; done; true"]
    volumeMounts:
    - {name: host, mountPath: /plain, readOnly: true}
    - {name: host, mountPath: /possible, readOnly: true, recursiveReadOnly: IfPossible}
    - {name: host, mountPath: /enabled, readOnly: true, recursiveReadOnly: Enabled}
  volumes: [{name: host, hostPath: {path: %q}}]
`, dir))
		wantLines(t, out, "/plain")
		wantLines(t, e.kubectl("get", "pod", "recursive", "-o", `jsonpath={range .status.containerStatuses[0].volumeMounts[*]}{.mountPath} {.recursiveReadOnly}{"\n"}{end}`), `
			/plain Disabled
			/possible Enabled
			/enabled Enabled
			/var/run/secrets/kubernetes.io/serviceaccount Disabled`)
	})
}

// applyPod creates a pod that isn't restarted: spec is the rest of its spec.
func (e *errand) applyPod(name, spec string) {
	e.t.Helper()
	e.apply(podManifest(name, spec))
}

func podManifest(name, spec string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {colour: red}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 0%s", name, spec)
}

// runPod does so, waits for its success and returns what it printed.
func (e *errand) runPod(name, spec string) string {
	e.t.Helper()
	e.applyPod(name, spec)
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/"+name)
	return e.kubectl("logs", name)
}

// podStatus is the status of one of the default namespace's pods.
func (e *errand) podStatus(name string) v1.PodStatus {
	e.t.Helper()
	p, err := e.client.CoreV1().Pods("default").Get(e.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return p.Status
}

// awaitEvent waits for an event about an object and returns its message.
func (e *errand) awaitEvent(name, reason string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	w, err := e.client.CoreV1().Events("default").Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.name": name, "reason": reason}.String(),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if event, ok := ev.Object.(*v1.Event); ok && ev.Type != watch.Deleted {
			return event.Message
		}
	}
	e.t.Fatalf("there is no event %s about %s: %v", reason, name, ctx.Err())
	return ""
}
