package apiserver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	restclient "k8s.io/client-go/rest"
)

const jobTemplate = `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":%q},"spec":{%s"template":{"spec":{"restartPolicy":%q,"containers":[{"name":"main","image":"busybox"}]}}}}`

// post sends a Job as JSON and returns the answer and its warnings.
func post(t *testing.T, ns, body string, params map[string]string) (string, []string, error) {
	t.Helper()
	warnings := &recorder{}
	config := restclient.CopyConfig(shared.config)
	config.WarningHandler = warnings
	req := clientFor(t, config).BatchV1().RESTClient().Post().Namespace(ns).Resource("jobs").
		SetHeader("Content-Type", "application/json").Body([]byte(body))
	for key, value := range params {
		req = req.Param(key, value)
	}
	answer, err := req.Do(t.Context()).Raw()
	return string(answer), warnings.texts, err
}

type recorder struct{ texts []string }

func (r *recorder) HandleWarningHeader(_ int, _ string, text string) { r.texts = append(r.texts, text) }

// A Job that etcd, or etcd's client, doesn't take is refused for its size, and not for what became of it when it was tried again.
func TestLargeJobsAreRefusedForTheirSize(t *testing.T) {
	ns := namespace(t, nil)
	for _, size := range []int{1_600_000, 2_500_000} {
		body := fmt.Sprintf(jobTemplate, "large", "", "Never")
		body = strings.Replace(body, `"image":"busybox"`, `"image":"busybox","args":["`+strings.Repeat("x", size)+`"]`, 1)
		answer, _, err := post(t, ns, body, nil)
		if !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(answer, "1.5 MiB") {
			t.Errorf("of %d bytes: %v: %.300s", size, err, answer)
		}
	}
}

func TestBadJobsAreRefusedInUpstreamsWords(t *testing.T) {
	ns := namespace(t, nil)
	long := strings.Repeat("x", 64)
	for name, test := range map[string]struct{ body, want string }{
		"negative completions": {
			fmt.Sprintf(jobTemplate, "j", `"completions":-1,`, "Never"),
			`Job.batch "j" is invalid: spec.completions: Invalid value: -1: must be greater than or equal to 0`,
		},
		"parallelism of a string": {
			fmt.Sprintf(jobTemplate, "j", `"parallelism":"three",`, "Never"),
			`json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32`,
		},
		"restartPolicy Always": {
			fmt.Sprintf(jobTemplate, "j", "", "Always"),
			`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`,
		},
		"name too long": {
			fmt.Sprintf(jobTemplate, long, "", "Never"),
			`must be no more than 63 bytes`,
		},
		"no template": {
			`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j"},"spec":{}}`,
			`spec.template.spec.containers: Required value`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer, _, err := post(t, ns, test.body, nil)
			if err == nil {
				t.Fatal("the Job was accepted")
			}
			if !strings.Contains(strings.ReplaceAll(answer, `\"`, `"`), test.want) && !strings.Contains(err.Error(), test.want) {
				t.Errorf("answer %s\nerror %v\nwant it to contain %s", answer, err, test.want)
			}
		})
	}
}

func TestUnknownFields(t *testing.T) {
	ns := namespace(t, nil)
	body := fmt.Sprintf(jobTemplate, "j", `"paralelism":3,`, "Never")
	answer, _, err := post(t, ns, body, map[string]string{"fieldValidation": "Strict"})
	if !apierrors.IsBadRequest(err) || !strings.Contains(answer, `unknown field \"spec.paralelism\"`) {
		t.Errorf("strict: got %v, %s", err, answer)
	}
	_, warnings, err := post(t, ns, body, map[string]string{"fieldValidation": "Warn"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`unknown field "spec.paralelism"`}, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestImmutableFields(t *testing.T) {
	ns := namespace(t, nil)
	jobs := shared.client.BatchV1().Jobs(ns)
	if _, err := jobs.Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for field, patch := range map[string]string{
		"spec.completions":    `{"spec":{"completions":5}}`,
		"spec.selector":       `{"spec":{"selector":{"matchLabels":{"a":"b"}}}}`,
		"spec.template":       `{"spec":{"template":{"spec":{"restartPolicy":"OnFailure"}}}}`,
		"spec.completionMode": `{"spec":{"completionMode":"Indexed"}}`,
	} {
		_, err := jobs.Patch(t.Context(), "j", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "field is immutable") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestPatches(t *testing.T) {
	ns := namespace(t, nil)
	jobs := shared.client.BatchV1().Jobs(ns)
	if _, err := jobs.Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		kind  types.PatchType
		patch string
		want  int32
	}{
		{types.StrategicMergePatchType, `{"spec":{"parallelism":2}}`, 2},
		{types.MergePatchType, `{"spec":{"parallelism":3}}`, 3},
		{types.JSONPatchType, `[{"op":"replace","path":"/spec/parallelism","value":4}]`, 4},
		{types.ApplyPatchType, `{"apiVersion":"batch/v1","kind":"Job","spec":{"parallelism":5}}`, 5},
	} {
		options := metav1.PatchOptions{FieldManager: "test"}
		if test.kind == types.ApplyPatchType {
			force := true
			options.Force = &force
		}
		job, err := jobs.Patch(t.Context(), "j", test.kind, []byte(test.patch), options)
		if err != nil {
			t.Errorf("%s: %v", test.kind, err)
			continue
		}
		if *job.Spec.Parallelism != test.want {
			t.Errorf("%s: parallelism is %d, want %d", test.kind, *job.Spec.Parallelism, test.want)
		}
	}
}

func TestServerSideApplyConflicts(t *testing.T) {
	ns := namespace(t, nil)
	jobs := shared.client.BatchV1().Jobs(ns)
	apply := func(manager string, parallelism int) error {
		body := fmt.Sprintf(jobTemplate, "j", fmt.Sprintf(`"parallelism":%d,`, parallelism), "Never")
		_, err := jobs.Patch(t.Context(), "j", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: manager})
		return err
	}
	if err := apply("one", 1); err != nil {
		t.Fatal(err)
	}
	err := apply("two", 2)
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one": .spec.parallelism`) {
		t.Errorf("got %v", err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	ns := namespace(t, nil)
	jobs := shared.client.BatchV1().Jobs(ns)
	job, err := jobs.Create(t.Context(), makeJob("j"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if job.UID == "" || *job.Spec.BackoffLimit != 6 {
		t.Errorf("a dry run should answer as a real one: uid %q, backoffLimit %v", job.UID, job.Spec.BackoffLimit)
	}
	if _, err := jobs.Get(t.Context(), "j", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the dry run: got %v, want not found", err)
	}
}

func TestKindsNotServedAreNotFound(t *testing.T) {
	_, err := shared.client.AppsV1().Deployments("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}
