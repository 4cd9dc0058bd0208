//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// What the API refuses, in upstream's words.
func TestBadManifests(t *testing.T) {
	e := start(t, "--node=false")
	e.apply(job("there", "true", "suspend: true", "completions: 2"))
	long := strings.Repeat("x", 64)

	for name, tc := range map[string]struct {
		manifest string
		args     []string
		want     []string
	}{
		"completions -1": {
			manifest: job("bad", "true", "completions: -1"),
			want:     []string{`The Job "bad" is invalid: spec.completions: Invalid value: -1: must be greater than or equal to 0`},
		},
		"parallelism of a string": {
			manifest: job("bad", "true", `parallelism: "three"`),
			want:     []string{"Job in version \"v1\" cannot be handled as a Job", "spec.parallelism"},
		},
		"unknown field, strict": {
			manifest: job("bad", "true", "paralelism: 2"),
			args:     []string{"--validate=strict"},
			want:     []string{`strict decoding error: unknown field "spec.paralelism"`},
		},
		"restartPolicy Always": {
			manifest: strings.Replace(job("bad", "true"), "Never", "Always", 1),
			want:     []string{`The Job "bad" is invalid: spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`},
		},
		"changed completions": {
			manifest: job("there", "true", "suspend: true", "completions: 3"),
			want:     []string{`The Job "there" is invalid: spec.completions: Invalid value: 3: field is immutable`},
		},
		"changed template": {
			manifest: job("there", "false", "suspend: true", "completions: 2"),
			want:     []string{`The Job "there" is invalid: spec.template.spec: Invalid value:`, "field is immutable"},
		},
		"changed selector": {
			manifest: job("there", "true", "suspend: true", "completions: 2", "selector: {matchLabels: {a: b}}"),
			want:     []string{"spec.selector", "field is immutable"},
		},
		"name too long": {
			manifest: job(long, "true"),
			want:     []string{"spec.template.labels", "must be no more than 63"},
		},
		"wrong version": {
			manifest: strings.Replace(job("bad", "true"), "batch/v1", "batch/v2", 1),
			want:     []string{`no matches for kind "Job" in version "batch/v2"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.with(t)
			msg := e.refused(tc.manifest, append([]string{"apply", "-f", "-"}, tc.args...)...)
			for _, want := range tc.want {
				if !strings.Contains(msg, want) {
					t.Errorf("it does not say %q:\n%s", want, msg)
				}
			}
		})
	}

	t.Run("unknown field, warned of", func(t *testing.T) {
		e := e.with(t)
		r := e.try(job("warned", "true", "suspend: true", "paralelism: 2"), "apply", "--validate=warn", "-f", "-")
		if r.Code != 0 || !strings.Contains(r.Stderr, `Warning: unknown field "spec.paralelism"`) {
			t.Errorf("exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}
