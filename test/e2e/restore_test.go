//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// restore leaves of a data directory what a backup holds, as docs/backup.md says.
func (e *errand) restore() {
	e.t.Helper()
	if _, err := e.Stop(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	if err := e.Drain(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	entries, err := os.ReadDir(e.cfg.DataDir)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, entry := range entries {
		if slices.Contains([]string{"etcd", "pki"}, entry.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(e.cfg.DataDir, entry.Name())); err != nil {
			e.t.Fatal(err)
		}
	}
}

// What ran when a backup was made was disrupted, and its Job goes on, wherever the
// backup is restored.
func TestRestore(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.apply(job("restored", "test -e /gate/tried && exit 0; touch /gate/tried; "+knockGate+"; sleep 3600",
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") + g.mount())
	g.arrived()
	first := e.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
	e.wait("condition=Ready", "pod/"+first)

	e.restore()
	e.start()
	e.wait("condition=Complete", "job/restored")
	if failed := e.kubectl("get", "job", "restored", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the restore counts as %s failures", failed)
	}
	status := e.podStatus(first)
	if c := condition(status, v1.DisruptionTarget); c == nil || c.Reason != v1.PodReasonTerminationByKubelet {
		t.Errorf("it is %s: %s with the conditions %+v", status.Reason, status.Message, status.Conditions)
	}

	// Elsewhere, its Node has another name: what was bound to the old one waits for nobody.
	e.restore()
	e.cfg.Args = append(slices.Clone(e.cfg.Args), "--node-name", "elsewhere")
	e.start()
	if nodes := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"); nodes != "elsewhere" {
		t.Errorf("the nodes are %s", nodes)
	}
}
