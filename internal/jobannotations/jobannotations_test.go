package jobannotations

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"errand.dev/errand/internal/jobrun"
)

func TestUnknown(t *testing.T) {
	path := field.NewPath("metadata", "annotations")
	const there = ": errand knows no such annotation, and it does nothing; there are errand.dev/image-pull-deadline, errand.dev/max-pod-failure-backoff, " +
		"errand.dev/pod-failure-backoff, errand.dev/ttl-seconds-after-failure, errand.dev/ttl-seconds-after-success"
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        []string
	}{
		"none":    {nil, nil},
		"known":   {map[string]string{PodFailureBackoff: "1s", TTLAfterFailure: "bad, but known"}, nil},
		"others'": {map[string]string{"example.com/image-pull-deadline": "1s", "errand.dev.example/x": "", "plain": ""}, nil},
		"a rerun": {map[string]string{jobrun.RerunOf: "a"}, nil},
		"mistyped": {map[string]string{"errand.dev/image-pull-dedline": "1s", "errand.dev/TTL": "", ImagePullDeadline: "1s"}, []string{
			"metadata.annotations[errand.dev/TTL]" + there, "metadata.annotations[errand.dev/image-pull-dedline]" + there,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Unknown(tc.annotations, path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMisplaced(t *testing.T) {
	got := Misplaced(map[string]string{ImagePullDeadline: "1s", TTLAfterFailure: "bad", "errand.dev/none": "", "plain": ""},
		field.NewPath("spec", "template", "metadata", "annotations"), field.NewPath("metadata", "annotations"))
	const there = ": errand reads this annotation in metadata.annotations, and here it does nothing"
	want := []string{
		"spec.template.metadata.annotations[errand.dev/image-pull-deadline]" + there,
		"spec.template.metadata.annotations[errand.dev/ttl-seconds-after-failure]" + there,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

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
