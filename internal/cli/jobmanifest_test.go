package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	manifestOfJob = `
apiVersion: batch/v1
kind: Job
metadata: {name: NAME}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: work, image: busybox, command: ["true"]}]}}}
---
`
	manifestOfConfig = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
`
)

func TestReadJob(t *testing.T) {
	job := strings.ReplaceAll(manifestOfJob, "NAME", "a")
	for name, tc := range map[string]struct{ manifest, want string }{
		"a Job":                 {job, ""},
		"a Job, as JSON":        {`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {}}`, ""},
		"nothing":               {"", "standard input holds no objects, and errand run takes one Job of batch/v1"},
		"comments":              {"# later\n---\n", "standard input holds no objects, and errand run takes one Job of batch/v1"},
		"an empty list":         {"{apiVersion: v1, kind: List, items: []}", "standard input holds no objects, and errand run takes one Job of batch/v1"},
		"not YAML":              {"a: [b", "read the manifest: standard input is not YAML: line 1: did not find expected ',' or ']'"},
		"not JSON":              {`{"kind":`, "read the manifest: standard input is neither YAML nor JSON: unexpected EOF"},
		"a text":                {"Dear all,", "read the manifest: standard input holds no Kubernetes object: those begin with apiVersion and kind, as in apiVersion: batch/v1, kind: Job"},
		"a bare list":           {"- a", "read the manifest: standard input holds no Kubernetes object: those begin with apiVersion and kind, as in apiVersion: batch/v1, kind: Job"},
		"no kind":               {"apiVersion: batch/v1", "read the manifest: standard input has no kind: each of its objects needs apiVersion and kind, as in apiVersion: batch/v1, kind: Job"},
		"no apiVersion":         {"kind: Job", "standard input holds a Job without an apiVersion, and errand run takes a Job of batch/v1"},
		"an old apiVersion":     {"{apiVersion: batch/v1beta1, kind: Job}", "standard input holds a Job of batch/v1beta1, and errand run takes a Job of batch/v1"},
		"no Job":                {manifestOfConfig, "standard input holds ConfigMap/settings of v1, and errand run takes a Job of batch/v1"},
		"no Job, with a prefix": {"{apiVersion: v1, kind: Pod, metadata: {generateName: a-}}", "standard input holds Pod/a-… of v1, and errand run takes a Job of batch/v1"},
		"two Jobs": {job + strings.ReplaceAll(manifestOfJob, "NAME", "b"),
			"standard input holds 2 Jobs, and errand run takes one: give it a manifest for each, or make them all by errand kubectl apply, and wait for them by errand wait job/a job/b"},
		"a Job and more": {manifestOfConfig + job,
			"standard input holds more than its Job, which is all that errand run takes: ConfigMap/settings of v1. Make the rest by errand kubectl apply first, and give errand run a manifest of the Job alone"},
		"an unknown field": {strings.ReplaceAll(job, "restartPolicy", "restartpolicy"), `standard input: strict decoding error: unknown field "spec.template.spec.restartpolicy"`},
		"a wrong type":     {strings.ReplaceAll(job, `["true"]`, "[[]]"), "standard input: spec.template.spec.containers.command: a list stands where a string belongs"},
		"a number":         {"{apiVersion: batch/v1, kind: Job, spec: 5}", "standard input: spec: a number stands where an object belongs"},
		"no number":        {"{apiVersion: batch/v1, kind: Job, spec: {parallelism: many}}", "standard input: spec.parallelism: a string stands where a whole number belongs"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readJob("-", strings.NewReader(tc.manifest))
			switch {
			case tc.want == "" && (err != nil || got.Name != "a"):
				t.Errorf("%v, %v", got, err)
			case tc.want != "" && (err == nil || err.Error() != tc.want):
				t.Errorf("%v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestReadJobOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "job.yaml")
	if _, err := readJob(path, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(manifestOfJob), 0o600); err != nil {
		t.Fatal(err)
	}
	if job, err := readJob(path, nil); err != nil || job.Name != "NAME" {
		t.Errorf("%v, %v", job, err)
	}
}
