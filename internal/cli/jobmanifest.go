package cli

import (
	"fmt"
	"io"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
)

// readJob reads the one Job of a manifest: a file, a URL, or stdin as "-".
func readJob(path string, stdin io.Reader) (*batchv1.Job, error) {
	builder := resource.NewLocalBuilder().Unstructured().Flatten()
	if path == "-" {
		builder = builder.Stream(stdin, "standard input")
	} else {
		builder = builder.FilenameParam(false, &resource.FilenameOptions{Filenames: []string{path}})
	}
	found, err := builder.Do().Infos()
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s holds %d objects, and errand run takes one Job: apply the others first, by errand kubectl apply", path, len(found))
	}
	object, ok := found[0].Object.(*unstructured.Unstructured)
	if kind := found[0].Object.GetObjectKind().GroupVersionKind(); !ok || kind != batchv1.SchemeGroupVersion.WithKind("Job") {
		return nil, fmt.Errorf("%s holds a %s of %s, and errand run takes a Job of %s", found[0].Source, kind.Kind, kind.GroupVersion(), batchv1.SchemeGroupVersion)
	}
	var job batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &job, true); err != nil {
		return nil, fmt.Errorf("%s: %w", found[0].Source, err)
	}
	return &job, nil
}
