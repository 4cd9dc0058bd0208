//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// An urgent Job takes the room of another, which runs when the urgent one is done
// and has lost no try by it.
func TestPreemption(t *testing.T) {
	e := start(t, "--max-pods=1")
	e.apply(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
`)
	low, high := newGate(t), newGate(t)
	e.apply(job("patient", "test -e /gate/tried && exit 0; touch /gate/tried; trap 'exit 9' TERM; "+knockGate+"; sleep 3600 & wait",
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") + low.mount())
	low.arrived()
	victim := e.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
	// Its end must be seen: the object stays.
	e.kubectl("patch", "pod", victim, "--type=json", "-p", `[{"op":"add","path":"/metadata/finalizers/-","value":"example.com/look"}]`)

	e.apply(strings.Replace(job("urgent", knockGate+"; while ! test -e /gate/done; do sleep 0.1; done", "backoffLimit: 0")+high.mount(),
		"restartPolicy: Never", "restartPolicy: Never\n      priorityClassName: urgent", 1))
	high.arrived()
	winner := e.pods("urgent")[0]
	status := e.podStatus(victim)
	if c := condition(status, v1.DisruptionTarget); status.Phase != v1.PodFailed || c == nil || c.Reason != v1.PodReasonPreemptionByScheduler {
		t.Errorf("the victim is %s with the conditions %+v", status.Phase, status.Conditions)
	}
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	if got, want := e.awaitEvent(victim, "Preempted"), fmt.Sprintf("Preempted by pod %s on node %s", winner.UID, node); got != want {
		t.Errorf("the event Preempted says %q, want %q", got, want)
	}
	if got, want := e.awaitEvent(winner.Name, "FailedScheduling"), "0/1 nodes are available: 1 Too many pods. preemption: found a potential placement for pod on node "+node+", preempting 1 victims"; got != want {
		t.Errorf("the event FailedScheduling says %q, want %q", got, want)
	}
	// Who was preempted waits.
	waits := e.podBesides("patient", victim)
	if got, want := e.awaitEvent(waits, "FailedScheduling"), "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."; got != want {
		t.Errorf("the event FailedScheduling says %q, want %q", got, want)
	}
	high.touch("done")
	e.wait("condition=Complete", "job/urgent")
	e.wait("condition=Complete", "job/patient")
	if failed := e.kubectl("get", "job", "patient", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the preemption counts as %s failures", failed)
	}
	e.kubectl("patch", "pod", victim, "--patch", `{"metadata":{"finalizers":null}}`)
}
