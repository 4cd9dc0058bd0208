package apiserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	restclient "k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/utils/ptr"
)

// An object that has such an annotation, since before errand refused it, can be changed otherwise: it must be able to lose its finalizers.
func TestJobAnnotationsThatStand(t *testing.T) {
	validate := func(was, is string) error {
		object := func(value string) *batch.Job {
			return &batch.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Annotations: map[string]string{"errand.dev/image-pull-deadline": value}}}
		}
		gvk := batch.SchemeGroupVersion.WithKind("Job")
		a := admission.NewAttributesRecord(object(is), object(was), gvk, "ns", "j", batch.Resource("jobs").WithVersion(""), "", admission.Update, nil, false, nil)
		return jobAnnotations{}.Validate(t.Context(), a, nil)
	}
	if err := validate("soon", "soon"); err != nil {
		t.Error(err)
	}
	if err := validate("soon", "later"); !apierrors.IsInvalid(err) {
		t.Errorf("another one that means nothing: %v", err)
	}
}

// Annotations for the engine that it couldn't read are refused, with their names: in Jobs, in CronJobs' templates, and when they are added later.
func TestJobAnnotations(t *testing.T) {
	ns, client := namespace(t, nil), clientFor(t, shared.config).BatchV1()
	spec := batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "busybox"}},
	}}}
	bad := map[string]string{"errand.dev/image-pull-deadline": "5 minutes", "errand.dev/ttl-seconds-after-success": "never"}
	refused := func(err error, path string) {
		t.Helper()
		want := path + `[errand.dev/image-pull-deadline]: Invalid value: "5 minutes": must be a duration such as 500ms`
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "ttl") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Annotations: bad}, Spec: spec}
	_, err := client.Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{})
	refused(err, "metadata.annotations")
	cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{
		Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: bad}, Spec: spec},
	}}
	_, err = client.CronJobs(ns).Create(t.Context(), cron, metav1.CreateOptions{})
	refused(err, "spec.jobTemplate.metadata.annotations")

	job.Annotations = map[string]string{"errand.dev/image-pull-deadline": "5m"}
	if _, err := client.Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"metadata":{"annotations":{"errand.dev/image-pull-deadline":"5 minutes"}}}`)
	_, err = client.Jobs(ns).Patch(t.Context(), "j", types.MergePatchType, patch, metav1.PatchOptions{})
	refused(err, "metadata.annotations")
}

// A name that there isn't is most likely mistyped: whoever writes it is told so once, and not at each change of something else.
func TestJobAnnotationsThatThereAreNot(t *testing.T) {
	warnings := &recorder{}
	config := restclient.CopyConfig(shared.config)
	config.WarningHandler = warnings
	ns, client := namespace(t, nil), clientFor(t, config).BatchV1()
	told := func(err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, text := range warnings.texts {
			text = strings.TrimSuffix(text, ", and here it does nothing")
			what, _, _ := strings.Cut(text, ": errand knows no such annotation")
			got = append(got, what)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		warnings.texts = nil
	}
	spec := batchv1.JobSpec{Suspend: ptr.To(true), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "busybox"}},
	}}}
	mistyped := metav1.ObjectMeta{Name: "j", Annotations: map[string]string{"errand.dev/image-pull-dedline": "5m", "errand.dev/image-pull-deadline": "5m"}}
	_, err := client.Jobs(ns).Create(t.Context(), &batchv1.Job{ObjectMeta: mistyped, Spec: spec}, metav1.CreateOptions{})
	told(err, "metadata.annotations[errand.dev/image-pull-dedline]")
	_, err = client.CronJobs(ns).Create(t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{
		Schedule: "* * * * *", Suspend: ptr.To(true), JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: mistyped, Spec: spec},
	}}, metav1.CreateOptions{})
	told(err, "spec.jobTemplate.metadata.annotations[errand.dev/image-pull-dedline]")
	for patch, want := range map[string][]string{
		`{"metadata":{"labels":{"a":"b"}}}`:                     nil,
		`{"metadata":{"annotations":{"errand.dev/ttl":"600"}}}`: {"metadata.annotations[errand.dev/ttl]"},
	} {
		_, err = client.Jobs(ns).Patch(t.Context(), "j", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		told(err, want...)
	}
	misplaced := *spec.DeepCopy()
	misplaced.Template.Annotations = map[string]string{"errand.dev/image-pull-deadline": "5m", "errand.dev/own": ""}
	_, err = client.Jobs(ns).Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: misplaced}, metav1.CreateOptions{})
	told(err, "spec.template.metadata.annotations[errand.dev/image-pull-deadline]: errand reads this annotation in metadata.annotations")
	_, err = client.CronJobs(ns).Create(t.Context(), &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "m", Annotations: map[string]string{"errand.dev/pod-failure-backoff": "1s"}},
		Spec:       batchv1.CronJobSpec{Schedule: "* * * * *", Suspend: ptr.To(true), JobTemplate: batchv1.JobTemplateSpec{Spec: misplaced}},
	}, metav1.CreateOptions{})
	told(err, "metadata.annotations[errand.dev/pod-failure-backoff]: errand reads this annotation in spec.jobTemplate.metadata.annotations",
		"spec.jobTemplate.spec.template.metadata.annotations[errand.dev/image-pull-deadline]: errand reads this annotation in spec.jobTemplate.metadata.annotations")
	_, err = client.Jobs(ns).Patch(t.Context(), "m", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	told(err)
}
