//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// The pods of an Indexed Job know their index in all the ways that Kubernetes
// gives them, and describe tells which are done.
func TestIndexed(t *testing.T) {
	e := start(t)
	e.apply(job("indexed", `echo "$JOB_COMPLETION_INDEX on $(hostname)"`, "completions: 5", "parallelism: 2", "completionMode: Indexed"))
	e.wait("condition=complete", "job/indexed")

	pods := e.pods("indexed")
	if len(pods) != 5 {
		t.Fatalf("it took %d pods, want 5", len(pods))
	}
	for _, pod := range pods {
		index := pod.Annotations[batchv1.JobCompletionIndexAnnotation]
		if !strings.HasPrefix(pod.Name, "indexed-"+index+"-") || pod.Labels[batchv1.JobCompletionIndexAnnotation] != index {
			t.Errorf("pod %s has the index %q in its annotation, %q in its label", pod.Name, index, pod.Labels[batchv1.JobCompletionIndexAnnotation])
		}
		wantLines(t, e.kubectl("logs", pod.Name), index+" on indexed-"+index)
	}
	described := e.kubectl("describe", "job", "indexed")
	for _, line := range []string{"Completion Mode:    Indexed", "Completed Indexes:  0-4", "0 Active (0 Ready) / 5 Succeeded / 0 Failed"} {
		if !strings.Contains(described, line) {
			t.Errorf("kubectl describe doesn't say %q:\n%s", line, described)
		}
	}
}

// An Indexed Job can be made larger and smaller while it runs (KEP-3715).
func TestElasticIndexed(t *testing.T) {
	e := start(t)
	e.apply(job("elastic", "sleep 3600", "completions: 2", "parallelism: 2", "completionMode: Indexed"))
	e.wait("jsonpath={.status.ready}=2", "job/elastic")
	e.kubectl("patch", "job", "elastic", "--patch", `{"spec":{"completions":4,"parallelism":4}}`)
	e.wait("jsonpath={.status.ready}=4", "job/elastic")
	e.kubectl("patch", "job", "elastic", "--patch", `{"spec":{"completions":1,"parallelism":1}}`)
	e.until("elastic", func(j *batchv1.Job) bool { return j.Status.Active == 1 && *j.Status.Terminating == 0 })
	if got := indexesOf(e.pods("elastic")); !slices.Equal(got, []string{"0"}) {
		t.Errorf("indexes %v are left, want 0", got)
	}
}

func indexesOf(pods []v1.Pod) []string {
	var indexes []string
	for _, pod := range pods {
		indexes = append(indexes, pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	}
	slices.Sort(indexes)
	return indexes
}

// With a limit for each index, one that fails too often doesn't end the others,
// and each pod knows how often its index has failed (KEP-3850).
func TestBackoffLimitPerIndex(t *testing.T) {
	e := start(t, "--pod-failure-backoff", "50ms")
	e.apply(job("limited", `[ "$JOB_COMPLETION_INDEX" != 1 ]`, "completions: 3", "parallelism: 3", "completionMode: Indexed", "backoffLimitPerIndex: 2"))
	e.wait("condition=failed", "job/limited")
	wantLines(t, e.kubectl("get", "job", "limited", "-o",
		"jsonpath={.status.completedIndexes} {.status.failedIndexes} {.status.succeeded} {.status.failed} {.status.conditions[*].reason}"),
		"0,2 1 2 3 FailedIndexes FailedIndexes")
	var counts []string
	for _, pod := range e.pods("limited") {
		if pod.Annotations[batchv1.JobCompletionIndexAnnotation] == "1" {
			counts = append(counts, pod.Annotations[batchv1.JobIndexFailureCountAnnotation])
		}
	}
	slices.Sort(counts)
	if want := []string{"0", "1", "2"}; !slices.Equal(counts, want) {
		t.Errorf("the pods of index 1 know of %v failures, want %v", counts, want)
	}
}

// A podFailurePolicy tells failures apart by exit codes (KEP-3329): one ends the
// Job at once, another doesn't count.
func TestPodFailurePolicy(t *testing.T) {
	e := start(t, "--pod-failure-backoff", "50ms")
	policy := []string{
		"backoffLimit: 0",
		"podFailurePolicy:",
		"  rules:",
		"  - {action: FailJob, onExitCodes: {containerName: work, operator: In, values: [42]}}",
		"  - {action: Ignore, onExitCodes: {operator: In, values: [5]}}",
	}
	e.apply(job("ends", "exit 42", policy...))
	e.wait("condition=failed", "job/ends")
	pod := e.pods("ends")[0].Name
	why := "Container work for pod default/" + pod + " failed with exit code 42 matching FailJob rule at index 0"
	wantLines(t, e.kubectl("get", "job", "ends", "-o", `jsonpath={range .status.conditions[*]}{.type} {.reason}: {.message}{"\n"}{end}`),
		"FailureTarget PodFailurePolicy: "+why+"\nFailed PodFailurePolicy: "+why)
	if got := e.awaitEvent("ends", "PodFailurePolicy"); got != why {
		t.Errorf("the event says %q, want %q", got, why)
	}

	// The second pod finds what the first left, and succeeds.
	e.apply(job("ignored", "[ -e /gate/tried ] || { touch /gate/tried; exit 5; }", policy...) + newGate(t).mount())
	e.wait("condition=complete", "job/ignored")
	wantLines(t, e.kubectl("get", "job", "ignored", "-o", "jsonpath={.status.succeeded} {.status.failed}."), "1 .")
}

// A successPolicy ends the Job before all indexes have succeeded (KEP-3998).
func TestSuccessPolicy(t *testing.T) {
	e := start(t)
	e.apply(job("led", `[ "$JOB_COMPLETION_INDEX" = 0 ] || sleep 3600`, "completions: 3", "parallelism: 3", "completionMode: Indexed",
		"successPolicy:", "  rules:", `  - {succeededIndexes: "0"}`))
	e.wait("condition=complete", "job/led")
	wantLines(t, e.kubectl("get", "job", "led", "-o", `jsonpath={.status.completedIndexes} {.status.succeeded} {range .status.conditions[*]}{.type} {.reason} {.message}{"\n"}{end}`),
		"0 1 SuccessCriteriaMet SuccessPolicy Matched rules at index 0\nComplete SuccessPolicy Matched rules at index 0")
}
