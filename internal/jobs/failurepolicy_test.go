package jobs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const (
	ignoreIt  = batchv1.PodFailurePolicyActionIgnore
	countIt   = batchv1.PodFailurePolicyActionCount
	failJob   = batchv1.PodFailurePolicyActionFailJob
	failIndex = batchv1.PodFailurePolicyActionFailIndex
)

// onExitOf is a rule for exit codes of a container; "" is any container.
func onExitOf(container string, action batchv1.PodFailurePolicyAction, op batchv1.PodFailurePolicyOnExitCodesOperator, codes ...int32) batchv1.PodFailurePolicyRule {
	rule := onExit(action, codes...)
	rule.OnExitCodes.Operator = op
	if container != "" {
		rule.OnExitCodes.ContainerName = &container
	}
	return rule
}

func exits(exits ...containerExit) podEnd { return podEnd{Exits: exits} }

func conditions(conditions ...podCondition) podEnd { return podEnd{Conditions: conditions} }

func TestJudgeFailure(t *testing.T) {
	const in, notIn = batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
	disrupted := podCondition{corev1.DisruptionTarget, corev1.ConditionTrue}
	evicted := podEnd{Exits: []containerExit{{"main", 137}}, Conditions: []podCondition{disrupted}}
	both := batchv1.PodFailurePolicyRule{Action: failJob, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
		{Type: "B", Status: corev1.ConditionTrue}, {Type: "A", Status: corev1.ConditionTrue},
	}}
	type rules = []batchv1.PodFailurePolicyRule
	for _, tc := range []struct {
		name  string
		rules rules
		end   podEnd
		want  verdict
	}{
		{"no rule", nil, exits(containerExit{"main", 1}), verdict{}},
		{"no rule matches", rules{onExit(ignoreIt, 2), onExit(failJob, 3)}, exits(containerExit{"main", 1}), verdict{}},
		{"In", rules{onExit(ignoreIt, 1, 2)}, exits(containerExit{"main", 2}), verdict{Action: ignoreIt}},
		{"NotIn", rules{onExitOf("", ignoreIt, notIn, 1, 2)}, exits(containerExit{"main", 3}), verdict{Action: ignoreIt}},
		{"NotIn doesn't match what is in", rules{onExitOf("", ignoreIt, notIn, 1, 2)}, exits(containerExit{"main", 2}), verdict{}},
		{"NotIn with no container that failed", rules{onExitOf("", ignoreIt, notIn, 1)}, podEnd{}, verdict{}},
		{"an operator of a later API", rules{onExitOf("", ignoreIt, "Above", 1)}, exits(containerExit{"main", 1}), verdict{}},
		{"the first match wins", rules{onExit(countIt, 1), onExit(failJob, 1)}, exits(containerExit{"main", 1}), verdict{Action: countIt}},
		{"FailIndex", rules{onExit(ignoreIt, 2), onExit(failIndex, 1)}, exits(containerExit{"main", 1}), verdict{Action: failIndex}},
		{"of that container", rules{onExitOf("side", ignoreIt, in, 1)}, exits(containerExit{"main", 3}, containerExit{"side", 1}), verdict{Action: ignoreIt}},
		{"of another container", rules{onExitOf("side", ignoreIt, in, 1)}, exits(containerExit{"main", 1}), verdict{}},
		{"any container", rules{onExit(ignoreIt, 1)}, exits(containerExit{"main", 3}, containerExit{"side", 1}), verdict{Action: ignoreIt}},
		{"rules before containers", rules{onExit(ignoreIt, 1), onExit(failJob, 3)}, exits(containerExit{"main", 3}, containerExit{"side", 1}), verdict{Action: ignoreIt}},
		{"a condition", rules{onCondition(ignoreIt, corev1.DisruptionTarget), onExit(failJob, 137)}, evicted, verdict{Action: ignoreIt}},
		{"a condition that isn't true", rules{onCondition(ignoreIt, "X")}, conditions(podCondition{"X", corev1.ConditionFalse}), verdict{}},
		{"another condition", rules{onCondition(ignoreIt, "X")}, conditions(disrupted), verdict{}},
		{
			"FailJob says which container", rules{onExit(ignoreIt, 5), onExit(failJob, 4, 3)}, exits(containerExit{"side", 9}, containerExit{"main", 3}),
			verdict{failJob, "Container main for pod default/job-abcde failed with exit code 3 matching FailJob rule at index 1"},
		},
		{
			"FailJob says which condition", rules{onCondition(failJob, corev1.DisruptionTarget)}, evicted,
			verdict{failJob, "Pod default/job-abcde has condition DisruptionTarget matching FailJob rule at index 0"},
		},
		{
			"of several conditions it names the pod's first", rules{both},
			conditions(podCondition{"A", corev1.ConditionTrue}, podCondition{"B", corev1.ConditionTrue}),
			verdict{failJob, "Pod default/job-abcde has condition A matching FailJob rule at index 0"},
		},
	} {
		got := judgeFailure(&batchv1.PodFailurePolicy{Rules: tc.rules}, "default", "job-abcde", tc.end)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
	if got := judgeFailure(nil, "default", "x", evicted); got != (verdict{}) || !got.counts() {
		t.Errorf("without a policy: %+v", got)
	}
}

func TestVerdictCounts(t *testing.T) {
	for action, want := range map[batchv1.PodFailurePolicyAction]bool{"": true, countIt: true, failJob: true, failIndex: true, ignoreIt: false} {
		if got := (verdict{Action: action}).counts(); got != want {
			t.Errorf("%q counts: %v", action, got)
		}
	}
}

// What a policy can ask about: the containers that failed, init containers last; 0 is no failure, and neither is a container without an end.
func TestReadEnd(t *testing.T) {
	exited := func(name string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	pod := &corev1.Pod{Status: corev1.PodStatus{
		InitContainerStatuses: []corev1.ContainerStatus{exited("init", 7), exited("ready", 0)},
		ContainerStatuses: []corev1.ContainerStatus{
			exited("fine", 0), exited("main", 3), {Name: "lost"},
			{Name: "again", LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 9}}},
		},
		Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"}},
	}}
	want := podEnd{
		Exits:      []containerExit{{"main", 3}, {"init", 7}},
		Conditions: []podCondition{{corev1.DisruptionTarget, corev1.ConditionTrue}},
	}
	if diff := cmp.Diff(want, readEnd(pod)); diff != "" {
		t.Error(diff)
	}
	rule := onExitOf("", failJob, batchv1.PodFailurePolicyOnExitCodesOpNotIn, 3)
	got := judgeFailure(&batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{rule}}, "ns", "p", readEnd(pod))
	if want := "Container init for pod ns/p failed with exit code 7 matching FailJob rule at index 0"; got.Message != want {
		t.Errorf("message %q", got.Message)
	}
}

// A policy demands real ends, whatever the Job's podReplacementPolicy says.
func TestReplacesFailedOnly(t *testing.T) {
	odd := makeJob("job").failureRules().obj()
	odd.Spec.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
	for _, tc := range []struct {
		name string
		job  *batchv1.Job
		want bool
	}{
		{"default", makeJob("job").obj(), false},
		{"podReplacementPolicy Failed", makeJob("job").replaceFailedOnly().obj(), true},
		{"podFailurePolicy", makeJob("job").failureRules().obj(), true},
		{"podFailurePolicy alone", odd, true},
	} {
		if got := replacesFailedOnly(tc.job); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
