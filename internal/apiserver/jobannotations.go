package apiserver

import (
	"context"
	"io"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/batch"

	"errand.dev/errand/internal/jobannotations"
)

const jobAnnotationsName = "JobAnnotations"

// jobAnnotations refuses Jobs, and templates of Jobs, with annotations for the
// engine that mean nothing: it would go on without them. It warns of those that
// have errand's prefix and a name that there isn't.
type jobAnnotations struct{}

func registerJobAnnotations(plugins *admission.Plugins) {
	plugins.Register(jobAnnotationsName, func(io.Reader) (admission.Interface, error) { return jobAnnotations{}, nil })
}

var _ admission.ValidationInterface = jobAnnotations{}

// Handles implements admission.Interface.
func (jobAnnotations) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.ValidationInterface.
func (jobAnnotations) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	now, path := forEngine(a.GetObject())
	before, _ := forEngine(a.GetOldObject())
	// What stands already mustn't keep the object from being changed otherwise, such as by losing its finalizers.
	said := maps.Clone(now)
	maps.DeleteFunc(said, func(name, value string) bool { old, ok := before[name]; return ok && old == value })
	for _, text := range jobannotations.Unknown(said, path) {
		warning.AddWarning(ctx, "", text)
	}
	if errs := jobannotations.Validate(said, path); len(errs) > 0 {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
	}
	return nil
}

// forEngine returns the annotations that the engine reads, and where they stand.
func forEngine(obj runtime.Object) (map[string]string, *field.Path) {
	switch o := obj.(type) {
	case *batch.Job:
		return o.Annotations, field.NewPath("metadata", "annotations")
	case *batch.CronJob:
		return o.Spec.JobTemplate.Annotations, field.NewPath("spec", "jobTemplate", "metadata", "annotations")
	}
	return nil, nil
}
