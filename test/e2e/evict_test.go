//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// kubectl drain empties the node by evictions; a Job that ignores disruptions
// loses no try by it, and goes on after kubectl uncordon.
func TestDrain(t *testing.T) {
	e := start(t)
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	g := newGate(t)
	e.apply(job("evicted", "test -e /gate/drained && exit 0; trap 'exit 9' TERM; "+knockGate+"; sleep 3600 & wait",
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") + g.mount())
	g.arrived()
	first := e.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}")

	out := e.kubectl("drain", node)
	for _, want := range []string{"node/" + node + " cordoned", "evicting pod default/" + first, "pod/" + first + " evicted", "node/" + node + " drained"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl drain doesn't say %q:\n%s", want, out)
		}
	}
	// Its successor waits for the node.
	second := e.awaitPodBut(first)
	if got, want := e.awaitEvent(second, "FailedScheduling"), "0/1 nodes are available: 1 node(s) were unschedulable."; !strings.HasPrefix(got, want) {
		t.Errorf("FailedScheduling says %q, want %q", got, want)
	}
	g.touch("drained")
	e.kubectl("uncordon", node)
	e.wait("condition=Complete", "job/evicted")
	if failed := e.kubectl("get", "job", "evicted", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the eviction counts as %s failures", failed)
	}
}

// errand drain disrupts pods, too: their Jobs go on at the next start.
func TestDrainOfTheHost(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.apply(job("drained", "test -e /gate/tried && exit 0; touch /gate/tried; "+knockGate+"; sleep 3600",
		"backoffLimit: 0", "podFailurePolicy:", "  rules:", "  - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}") + g.mount())
	g.arrived()
	first := e.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
	e.wait("condition=Ready", "pod/"+first)
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.wait("condition=Complete", "job/drained")
	if failed := e.kubectl("get", "job", "drained", "-o", "jsonpath={.status.failed}"); failed != "" && failed != "0" {
		t.Errorf("the drain counts as %s failures", failed)
	}
	status := e.podStatus(first)
	if c := condition(status, v1.DisruptionTarget); status.Reason != "Terminated" || status.Message != "Pod was terminated in response to imminent node shutdown." ||
		c == nil || c.Reason != v1.PodReasonTerminationByKubelet {
		t.Errorf("it is %s: %s with the conditions %+v", status.Reason, status.Message, status.Conditions)
	}
}

// Evictions obey PodDisruptionBudgets, and say of the pod that they disrupted it.
func TestEviction(t *testing.T) {
	e := start(t)
	g := newGate(t)
	manifest := podManifest("guarded", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "%s; sleep 3600"], volumeMounts: [%s]}]
  volumes: [%s]
`, knockGate, gateMount, g.volume()))
	e.apply(strings.Replace(manifest, "metadata: {", "metadata: {finalizers: [example.com/look], ", 1))
	e.apply(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: budget}
spec: {minAvailable: 1, selector: {matchLabels: {colour: red}}}
`)
	g.arrived()
	e.wait("condition=Ready", "pod/guarded")
	e.wait("jsonpath={.status.currentHealthy}=1", "pdb/budget")

	const eviction = `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "guarded"}}`
	evict := []string{"create", "--raw", "/api/v1/namespaces/default/pods/guarded/eviction", "-f", "-"}
	if got := e.refused(eviction, evict...); !strings.Contains(got, "Cannot evict pod as it would violate the pod's disruption budget.") {
		t.Errorf("against the budget, the answer is %s", got)
	}
	e.kubectl("patch", "pdb", "budget", "--patch", `{"spec":{"minAvailable":0}}`)
	e.wait("jsonpath={.status.disruptionsAllowed}=1", "pdb/budget")
	e.kubectlIn(eviction, evict...)
	e.wait("condition=DisruptionTarget", "pod/guarded")
	e.wait("jsonpath={.status.phase}=Failed", "pod/guarded")
	// What the node says of the pod's end leaves the condition in place.
	status := e.podStatus("guarded")
	if c := condition(status, v1.DisruptionTarget); c == nil || c.Status != v1.ConditionTrue || c.Reason != "EvictionByEvictionAPI" {
		t.Errorf("its conditions are %+v", status.Conditions)
	}
	e.kubectl("patch", "pod", "guarded", "--patch", `{"metadata":{"finalizers":null}}`)
	e.wait("delete", "pod/guarded")
}

// awaitPodBut waits for a pod of the default namespace that isn't old, and
// returns its name.
func (e *errand) awaitPodBut(old string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	w, err := e.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermNotEqualSelector("metadata.name", old).String()})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if pod, ok := ev.Object.(*v1.Pod); ok {
			return pod.Name
		}
	}
	e.t.Fatalf("there is no pod but %s: %v", old, ctx.Err())
	return ""
}

func condition(status v1.PodStatus, kind v1.PodConditionType) *v1.PodCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}
