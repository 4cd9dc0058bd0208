//go:build e2e

package e2e

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// A taint of the effect NoExecute ends the pods that don't tolerate it, and keeps
// others away. A Job that ignores disruptions loses no try by it, and goes on when
// the taint has gone; one that tolerates it isn't troubled.
func TestTaints(t *testing.T) {
	e := start(t)
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	low, high := newGate(t), newGate(t)
	e.apply(strings.Replace(job("tolerant", knockGate+"; while ! test -e /gate/done; do sleep 0.1; done", "backoffLimit: 0")+high.mount(),
		"restartPolicy: Never", "restartPolicy: Never\n      tolerations: [{key: broken, operator: Exists}]", 1))
	high.arrived()
	e.apply(job("evicted", "test -e /gate/tried && exit 0; touch /gate/tried; trap 'exit 9' TERM; "+knockGate+"; sleep 3600 & wait",
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") + low.mount())
	low.arrived()
	first := e.pods("evicted")[0].Name
	// Its end must be seen: the object stays.
	e.kubectl("patch", "pod", first, "--type=json", "-p", `[{"op":"add","path":"/metadata/finalizers/-","value":"example.com/look"}]`)

	e.kubectl("taint", "node", node, "broken=disk:NoExecute")
	e.wait("jsonpath={.status.phase}=Failed", "pod/"+first)
	if c := condition(e.podStatus(first), v1.DisruptionTarget); c == nil || c.Status != v1.ConditionTrue || c.Reason != "DeletionByTaintManager" {
		t.Errorf("its conditions are %+v", e.podStatus(first).Conditions)
	}
	if got, want := e.awaitEvent(first, "TaintManagerEviction"), "Marking for deletion Pod default/"+first; got != want {
		t.Errorf("the event TaintManagerEviction says %q, want %q", got, want)
	}
	// Its successor waits, and so would one that the effect NoSchedule concerns.
	second := e.podBesides("evicted", first)
	const waits = "0/1 nodes are available: 1 node(s) had untolerated taint(s)."
	if got := e.awaitEvent(second, "FailedScheduling"); !strings.HasPrefix(got, waits) {
		t.Errorf("FailedScheduling says %q, want %q", got, waits)
	}
	e.kubectl("taint", "node", node, "broken=disk:NoSchedule", "broken=disk:NoExecute-")
	e.apply(job("late", "true"))
	if got := e.awaitEvent(e.podBesides("late", ""), "FailedScheduling"); !strings.HasPrefix(got, waits) {
		t.Errorf("FailedScheduling says %q, want %q", got, waits)
	}
	high.touch("done")
	e.wait("condition=Complete", "job/tolerant") // at its first try: it has no other

	e.kubectl("taint", "node", node, "broken-")
	e.wait("condition=Complete", "job/evicted", "job/late")
	if failed := e.kubectl("get", "job", "evicted", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the eviction counts as %s failures", failed)
	}
	e.kubectl("patch", "pod", first, "--patch", `{"metadata":{"finalizers":null}}`)
}
