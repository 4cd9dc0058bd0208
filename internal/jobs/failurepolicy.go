package jobs

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// podEnd is what a Job's podFailurePolicy can ask about a pod that has failed.
type podEnd struct {
	// Exits are the containers that have ended with another code than 0; init containers stand last.
	Exits []containerExit
	// Conditions of the pod.
	Conditions []podCondition
}

type containerExit struct {
	Container string
	Code      int32
}

type podCondition struct {
	Type   corev1.PodConditionType
	Status corev1.ConditionStatus
}

func readEnd(pod *corev1.Pod) podEnd {
	var end podEnd
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if t := statuses[i].State.Terminated; t != nil && t.ExitCode != 0 {
				end.Exits = append(end.Exits, containerExit{statuses[i].Name, t.ExitCode})
			}
		}
	}
	for i := range pod.Status.Conditions {
		end.Conditions = append(end.Conditions, podCondition{pod.Status.Conditions[i].Type, pod.Status.Conditions[i].Status})
	}
	return end
}

// verdict is what a Job's podFailurePolicy says of a failed pod. The zero verdict is that of no rule: the failure counts.
type verdict struct {
	// Action of the rule that matched; "" if none did.
	Action batchv1.PodFailurePolicyAction
	// Message says why the Job has to fail, if the action is FailJob.
	Message string
}

// counts says whether the failure counts towards the backoff limit.
func (v verdict) counts() bool { return v.Action != batchv1.PodFailurePolicyActionIgnore }

// judgeFailure applies the Job's podFailurePolicy (KEP-3329) to a pod that has failed: the first rule that matches decides.
func judgeFailure(policy *batchv1.PodFailurePolicy, namespace, name string, end podEnd) verdict {
	if policy == nil {
		return verdict{}
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		why, matches := matchRule(rule, namespace, name, end)
		if !matches {
			continue
		}
		v := verdict{Action: rule.Action}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob {
			v.Message = fmt.Sprintf("%s matching %s rule at index %d", why, rule.Action, i)
		}
		return v
	}
	return verdict{}
}

// matchRule says whether a rule matches, and by what.
func matchRule(rule *batchv1.PodFailurePolicyRule, namespace, name string, end podEnd) (why string, matches bool) {
	if onCodes := rule.OnExitCodes; onCodes != nil {
		for _, exit := range end.Exits {
			if matchExit(onCodes, exit) {
				return fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", exit.Container, namespace, name, exit.Code), true
			}
		}
		return "", false
	}
	for _, c := range end.Conditions {
		if slices.Contains(rule.OnPodConditions, batchv1.PodFailurePolicyOnPodConditionsPattern(c)) {
			return fmt.Sprintf("Pod %s/%s has condition %s", namespace, name, c.Type), true
		}
	}
	return "", false
}

func matchExit(on *batchv1.PodFailurePolicyOnExitCodesRequirement, exit containerExit) bool {
	if on.ContainerName != nil && *on.ContainerName != exit.Container {
		return false
	}
	named := slices.Contains(on.Values, exit.Code)
	switch on.Operator {
	case batchv1.PodFailurePolicyOnExitCodesOpIn:
		return named
	case batchv1.PodFailurePolicyOnExitCodesOpNotIn:
		return !named
	default:
		return false // a later API's: it can't be said what it means
	}
}
