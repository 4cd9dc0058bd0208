//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A machine needs no OCI runtime for ordinary pods. What errand's launcher doesn't
// take says what it lacks, at the start, in errand doctor and in the pod's events.
func TestWithoutAnOCIRuntime(t *testing.T) {
	dir := t.TempDir() // which has neither crun nor runc
	for _, name := range []string{"errand", "errand-shim", "kubectl"} {
		program, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e := start(t)
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	e.cfg.Bin = dir
	e.start()
	if log := e.Log(); !strings.Contains(log, "errand: no OCI runtime was found: pods that errand doesn't start itself can't run, such as privileged ones; install crun") {
		t.Errorf("it said:\n%s", log)
	}

	e.apply(job("echo", "echo Hello, Job"))
	e.wait("condition=complete", "job/echo")
	wantLines(t, e.kubectl("logs", "job/echo"), "Hello, Job")

	e.apply(`apiVersion: v1
kind: Pod
metadata: {name: privileged}
spec:
  restartPolicy: OnFailure
  containers:
  - {name: work, image: busybox:latest, imagePullPolicy: IfNotPresent, command: ["true"], securityContext: {privileged: true}}
`)
	e.awaitEvent("privileged", "Failed")
	want := "isn't taken by errand's own launcher, and errand has found no OCI runtime that could start the container: install one (errand doctor says which serve) and restart errand"
	if events := e.describedEvents("privileged"); !strings.Contains(events, want) {
		t.Errorf("its events:\n%s", events)
	}

	r := command{args: []string{"doctor", "--data-dir", e.cfg.DataDir}}.runAs(t, filepath.Join(dir, "errand"), nil)
	if !strings.Contains(r.Stdout, "none was found: what errand doesn't start itself can't run") {
		t.Errorf("errand doctor: %s%s", r.Stdout, r.Stderr)
	}
}
