package jobannotations

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []string
		wrong  []string
	}{
		{PodFailureBackoff, []string{"0s", "500ms", "1h30m"}, []string{"", "10", "-1s", "soon"}},
		{MaxPodFailureBackoff, []string{"0s", "24h"}, []string{"-1ns", "1d"}},
		{ImagePullDeadline, []string{"0s", "5m"}, []string{"5", "-5m"}},
		{TTLAfterSuccess, []string{"0", "3600", "never"}, []string{"", "1h", "-1", "Never", "2147483648"}},
		{TTLAfterFailure, []string{"0", "2147483647", "never"}, []string{"1.5"}},
		{"errand.dev/else", []string{"whatever"}, nil},
	} {
		for _, v := range tc.values {
			if errs := Validate(map[string]string{tc.name: v}, nil); len(errs) > 0 {
				t.Errorf("%s: %q: %v", tc.name, v, errs)
			}
		}
		for _, v := range tc.wrong {
			errs := Validate(map[string]string{tc.name: v}, field.NewPath("metadata", "annotations"))
			if len(errs) != 1 || errs[0].Field != "metadata.annotations["+tc.name+"]" || !strings.Contains(errs[0].Detail, "must be a ") {
				t.Errorf("%s: %q: %v", tc.name, v, errs)
			}
		}
	}
}
