package jobrun

import (
	"context"
	"fmt"
	"path"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
)

// Words are what a Job is made from without a manifest. What isn't set is the API's
// to default.
type Words struct {
	Name         string // "" for one that the API makes, from the image's
	Image        string
	Command      []string // the image's own if there is none
	Env          []string // NAME=VALUE, or NAME for a variable that Lookup finds
	Labels       map[string]string
	Completions  *int32
	Parallelism  *int32
	BackoffLimit *int32
	Deadline     *int64 // activeDeadlineSeconds
	Indexed      bool
	Restart      corev1.RestartPolicy
	Pull         corev1.PullPolicy
	WorkingDir   string
	Resources    corev1.ResourceList // both the request and the limit

	// Lookup is the caller's environment.
	Lookup func(name string) (string, bool)
}

// containerName is the name of the one container of a Job made from words.
const containerName = "main"

// Make makes a Job from words.
func Make(w Words) (*batchv1.Job, error) {
	env, err := environment(w.Env, w.Lookup)
	if err != nil {
		return nil, err
	}
	container := corev1.Container{
		Name: containerName, Image: w.Image, Command: w.Command, Env: env, WorkingDir: w.WorkingDir, ImagePullPolicy: w.Pull,
	}
	if len(w.Resources) > 0 {
		container.Resources = corev1.ResourceRequirements{Requests: w.Resources, Limits: w.Resources}
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name, Labels: w.Labels},
		Spec: batchv1.JobSpec{
			Completions: w.Completions, Parallelism: w.Parallelism, BackoffLimit: w.BackoffLimit, ActiveDeadlineSeconds: w.Deadline,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: w.Labels},
				Spec:       corev1.PodSpec{RestartPolicy: w.Restart, Containers: []corev1.Container{container}},
			},
		},
	}
	if w.Indexed {
		mode := batchv1.IndexedCompletion
		job.Spec.CompletionMode = &mode
	}
	if w.Name == "" {
		job.GenerateName = imageName(w.Image) + "-"
	}
	return job, nil
}

// environment reads variables as NAME=VALUE, or NAME alone.
func environment(words []string, lookup func(string) (string, bool)) ([]corev1.EnvVar, error) {
	env := make([]corev1.EnvVar, 0, len(words))
	for _, word := range words {
		name, value, found := strings.Cut(word, "=")
		if problems := validation.IsEnvVarName(name); len(problems) > 0 {
			return nil, fmt.Errorf("--env %q: the name %q: %s", word, name, strings.Join(problems, "; "))
		}
		if !found {
			if value, found = lookup(name); !found {
				return nil, fmt.Errorf("--env %s: there is no such variable here to pass on; set one by %s=VALUE", name, name)
			}
		}
		env = append(env, corev1.EnvVar{Name: name, Value: value})
	}
	return env, nil
}

// maxStem leaves room in a Job's name, of 63 characters at most, for what the API adds
// to it, an index and what is added to that for a pod.
const maxStem = 40

// imageName is what of an image's name can begin a Job's.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = path.Base(image)
	image, _, _ = strings.Cut(image, ":")
	image = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(image))
	image = strings.Trim(image[:min(len(image), maxStem)], "-")
	if len(validation.IsDNS1123Label(image)) > 0 {
		return "job"
	}
	return image
}

// Create creates a Job, strictly: a field that the API doesn't know is an error.
func Create(ctx context.Context, client kubernetes.Interface, job *batchv1.Job) (*batchv1.Job, error) {
	created, err := client.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{FieldManager: "errand-run", FieldValidation: metav1.FieldValidationStrict})
	if apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("%w in the namespace %s: run it again by errand rerun job/%s, or take another name", err, job.Namespace, job.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("create the Job: %w", err)
	}
	return created, nil
}
