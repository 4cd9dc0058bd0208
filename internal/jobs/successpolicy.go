package jobs

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
)

// matchSuccess says whether an Indexed Job's successPolicy (KEP-3998) takes the indexes that have succeeded for enough, and which rule does: the
// first that matches.
func matchSuccess(policy *batchv1.SuccessPolicy, completions int32, done intervals) (message string, met bool) {
	if policy == nil || len(done) == 0 {
		return "", false
	}
	for i := range policy.Rules {
		if matchSuccessRule(&policy.Rules[i], completions, done) {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}

// matchSuccessRule: so many of those indexes as the rule says; without a number, all of them; without indexes, any.
func matchSuccessRule(rule *batchv1.SuccessPolicyRule, completions int32, done intervals) bool {
	if rule.SucceededIndexes == nil {
		return rule.SucceededCount != nil && done.total() >= *rule.SucceededCount
	}
	wanted := parseIntervals(*rule.SucceededIndexes, completions)
	if len(wanted) == 0 {
		return false
	}
	need := wanted.total()
	if rule.SucceededCount != nil {
		need = *rule.SucceededCount
	}
	return wanted.common(done) >= need
}
