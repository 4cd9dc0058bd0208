package jobs

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"
)

// succeeding is a rule for a Job's success; indexes "" and count -1 are what the user has left out.
func succeeding(indexes string, count int32) batchv1.SuccessPolicyRule {
	var rule batchv1.SuccessPolicyRule
	if indexes != "" {
		rule.SucceededIndexes = &indexes
	}
	if count >= 0 {
		rule.SucceededCount = &count
	}
	return rule
}

func TestMatchSuccess(t *testing.T) {
	type rules = []batchv1.SuccessPolicyRule
	for _, tc := range []struct {
		name  string
		rules rules
		done  string
		// want is the message, "" for none.
		want string
	}{
		{"nothing done", rules{succeeding("", 0)}, "", ""},
		{"any one", rules{succeeding("", 1)}, "7", "Matched rules at index 0"},
		{"any three, two done", rules{succeeding("", 3)}, "0,7", ""},
		{"any three", rules{succeeding("", 3)}, "0,5,7", "Matched rules at index 0"},
		{"all of them", rules{succeeding("0,3-5", -1)}, "0,3-5", "Matched rules at index 0"},
		{"all of them but one", rules{succeeding("0,3-5", -1)}, "0-4", ""},
		{"all of them and more", rules{succeeding("0,3-5", -1)}, "0-7", "Matched rules at index 0"},
		{"two of them", rules{succeeding("0,3-5", 2)}, "3,5", "Matched rules at index 0"},
		{"two of them, one is another", rules{succeeding("0,3-5", 2)}, "3,6,7", ""},
		{"none of them", rules{succeeding("0", 1)}, "1-7", ""},
		{"the second rule", rules{succeeding("0", -1), succeeding("", 2)}, "5,6", "Matched rules at index 1"},
		{"both: the first", rules{succeeding("5", -1), succeeding("", 1)}, "5", "Matched rules at index 0"},
		{"indexes that the Job doesn't have", rules{succeeding("9", -1)}, "0-7", ""},
		{"one that it has, one that it doesn't", rules{succeeding("7-9", -1)}, "7", "Matched rules at index 0"},
		{"no indexes", rules{{SucceededIndexes: ptr.To("")}}, "0-7", ""},
		{"neither", rules{{}}, "0-7", ""},
	} {
		message, met := matchSuccess(&batchv1.SuccessPolicy{Rules: tc.rules}, 8, parseIntervals(tc.done, 8))
		if message != tc.want || met != (tc.want != "") {
			t.Errorf("%s: %q, %v", tc.name, message, met)
		}
	}
	if _, met := matchSuccess(nil, 8, parseIntervals("0-7", 8)); met {
		t.Error("met without a policy")
	}
}
