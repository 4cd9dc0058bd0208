//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// claim writes a PersistentVolumeClaim's manifest; spec is further lines of its spec.
func claim(name string, spec ...string) string {
	m := fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: %s\nspec:\n"+
		"  resources: {requests: {storage: 1Gi}}\n", name)
	if !strings.Contains(strings.Join(spec, "\n"), "accessModes") {
		m += "  accessModes: [ReadWriteOnce]\n"
	}
	for _, line := range spec {
		m += "  " + line + "\n"
	}
	return m + "---\n"
}

// withClaim makes the job's container mount a claim at /data; mount is what else
// the mount says.
func withClaim(job, claim, mount string) string {
	return job + fmt.Sprintf("        volumeMounts: [{name: data, mountPath: /data%s}]\n"+
		"      volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]\n", mount, claim)
}

// volumeOf is the PersistentVolume that the claim is bound to, and its directory.
func (e *errand) volumeOf(claim string) (name, dir string) {
	e.t.Helper()
	e.wait("jsonpath={.status.phase}=Bound", "pvc/"+claim)
	name = e.kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
	return name, e.kubectl("get", "pv", name, "-o", "jsonpath={.spec.local.path}")
}

func (e *errand) gone(path string) {
	e.t.Helper()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		e.t.Errorf("%s is still there: %v", path, err)
	}
}

func want(t *testing.T, got string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), w) {
			t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
}

// What one Job writes to a claim another reads, whatever happens to errand in
// between; the data goes with its claim.
func TestClaimOutlivesJobs(t *testing.T) {
	e := start(t)
	e.apply(claim("data") + withClaim(job("writer", "echo kept > /data/file"), "data", ""))
	e.wait("condition=complete", "job/writer")
	pv, dir := e.volumeOf("data")

	want(t, e.kubectl("get", "storageclass"), "standard (default) errand.dev/local Delete Immediate false")
	want(t, e.kubectl("get", "pvc"), "data Bound "+pv+" 1Gi RWO standard")
	want(t, e.kubectl("get", "pv"), pv+" 1Gi RWO Delete Bound default/data standard")
	want(t, e.kubectl("describe", "pvc", "data"), "Status: Bound", "Finalizers: [kubernetes.io/pvc-protection]",
		"ProvisioningSucceeded", "Successfully provisioned volume "+pv+" using errand.dev/local")

	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.apply(withClaim(job("reader", "cat /data/file; ! touch /data/new 2>/dev/null"), "data", ", readOnly: true"))
	e.wait("condition=complete", "job/reader")
	if got := e.kubectl("logs", "job/reader"); got != "kept\n" {
		t.Errorf("the second Job reads %q", got)
	}

	e.kubectl("delete", "job", "writer", "reader")
	e.kubectl("delete", "pvc", "data", "--timeout=60s")
	e.wait("delete", "pv/"+pv)
	e.gone(dir)
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// A claim is kept as long as there is a pod that uses it, even one that has ended.
func TestClaimInUseIsKept(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.apply(claim("data") + job("user", passGate+"; echo late > /data/file") + fmt.Sprintf("        volumeMounts: [%s, {name: data, mountPath: /data}]\n"+
		"      volumes: [%s, {name: data, persistentVolumeClaim: {claimName: data}}]\n", gateMount, g.volume()))
	_, dir := e.volumeOf("data")
	e.kubectl("delete", "pvc", "data", "--wait=false")
	want(t, e.kubectl("describe", "pvc", "data"), "Status: Terminating (lasts", "Used By: user-")
	g.open(1)
	e.wait("condition=complete", "job/user")
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "late\n" {
		t.Errorf("the pod wrote %q, %v", data, err)
	}
	e.kubectl("delete", "job", "user")
	e.wait("delete", "pvc/data")
	e.wait("delete", "pv", "--all")
	e.gone(dir)
}

// A volume that is to be retained is, with what it holds, until it is removed by hand.
func TestRetainedVolume(t *testing.T) {
	e := start(t)
	e.apply(claim("data") + withClaim(job("writer", "echo kept > /data/file"), "data", ""))
	e.wait("condition=complete", "job/writer")
	pv, dir := e.volumeOf("data")
	e.kubectl("delete", "job", "writer")
	e.kubectl("patch", "pv", pv, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	e.kubectl("delete", "pvc", "data", "--timeout=60s")
	e.wait("jsonpath={.status.phase}=Released", "pv/"+pv)
	e.kubectl("delete", "pv", pv, "--timeout=60s")
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "kept\n" {
		t.Errorf("the data is %q, %v", data, err)
	}
}

// Pods' groups, sub-paths, claims of a pod's own, volumes made by hand, and
// claims that wait for their first pod.
func TestKindsOfClaims(t *testing.T) {
	e := start(t)
	own := t.TempDir()
	if err := os.WriteFile(filepath.Join(own, "file"), []byte("by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	e.apply(claim("data") + claim("hand", `storageClassName: ""`, "selector: {matchLabels: {of: hand}}") + claim("late", "storageClassName: late") +
		fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: hand, labels: {of: hand}}
spec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], hostPath: {path: %q}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: errand.dev/local
volumeBindingMode: WaitForFirstConsumer
`, own))
	for name, tc := range map[string]struct{ volume, mount, script, want string }{
		"group": {"{name: data, persistentVolumeClaim: {claimName: data}}", "", "echo x > /data/file; stat -c '%g %a' /data; stat -c %g /data/file", "4711 2777\n4711\n"},
		"sub":   {"{name: data, persistentVolumeClaim: {claimName: data}}", ", subPath: a/b", "echo x > /data/deep; ls /data", "deep\n"},
		"hand":  {"{name: data, persistentVolumeClaim: {claimName: hand}}", "", "cat /data/file", "by hand\n"},
		"late":  {"{name: data, persistentVolumeClaim: {claimName: late}}", "", "touch /data/x; ls /data", "x\n"},
		"own": {"{name: data, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Gi}}}}}}", "",
			"touch /data/x; ls /data", "x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.with(t)
			got := e.runPod(name, fmt.Sprintf(`
  securityContext: {runAsUser: 1000, fsGroup: 4711}
  volumes: [%s]
  containers: [{name: c, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, %q], volumeMounts: [{name: data, mountPath: /data%s}]}]
`,
				tc.volume, tc.script, tc.mount))
			if got != tc.want {
				t.Errorf("it says %q, want %q", got, tc.want)
			}
		})
	}
	// Nothing was amiss at any time: a pod comes once its claim is bound.
	if got := e.kubectl("get", "events", "--field-selector=reason=FailedMount"); got != "" {
		t.Error(got)
	}
	// The pod's own claim, and its volume, go with the pod.
	e.kubectl("delete", "pod", "own")
	e.wait("delete", "pvc/own-data")
}

// What can't be given is refused, by name, where the user looks.
func TestClaimsRefused(t *testing.T) {
	e := start(t)
	e.apply(claim("block", "volumeMode: Block"))
	e.awaitEvent("block", "ProvisioningFailed")
	want(t, e.kubectl("describe", "pvc", "block"), "errand.dev/local does not support block volume provisioning: set spec.volumeMode to Filesystem")
	e.applyPod("waits", `
  containers: [{name: c, image: busybox}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: block}}]
`)
	e.awaitEvent("waits", "FailedScheduling")
	want(t, e.kubectl("describe", "pod", "waits"), "pod has unbound immediate PersistentVolumeClaims")
	e.kubectl("delete", "pod", "waits")

	e.kubectl("create", "quota", "few", "--hard=persistentvolumeclaims=1")
	e.wait("jsonpath={.status.used.persistentvolumeclaims}=1", "quota/few")
	want(t, e.refused(claim("more"), "apply", "-f", "-"), "exceeded quota: few, requested: persistentvolumeclaims=1, used: persistentvolumeclaims=1")
}

// errand serve dies while it makes volumes, and while it removes them: each
// claim gets one, and of each that is deleted nothing is left.
func TestKillWhileClaiming(t *testing.T) {
	e := start(t)
	const claims, kills = 30, 4
	var all strings.Builder
	for i := range claims {
		all.WriteString(claim(fmt.Sprintf("c%d", i)))
	}
	volumes := filepath.Join(e.cfg.DataDir, "volumes")
	killDuring := func(args ...string) {
		t.Helper()
		for range kills {
			e.try(all.String(), args...)
			if err := e.Kill(); err != nil {
				t.Fatal(err)
			}
			e.start()
		}
		e.kubectlIn(all.String(), args...)
	}
	killDuring("apply", "-f", "-")
	e.wait("jsonpath={.status.phase}=Bound", "pvc", "--all")
	if made, err := os.ReadDir(volumes); err != nil || len(made) != claims {
		t.Errorf("there are %d directories of %d claims, %v", len(made), claims, err)
	}
	killDuring("delete", "--ignore-not-found", "--wait=false", "-f", "-")
	e.wait("delete", "pv", "--all")
	if left, err := os.ReadDir(volumes); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
