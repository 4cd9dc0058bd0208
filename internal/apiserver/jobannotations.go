package apiserver

import (
	"context"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/apis/batch"

	"errand.dev/errand/internal/jobannotations"
)

const jobAnnotationsName = "JobAnnotations"

// jobAnnotations refuses Jobs, and templates of Jobs, with annotations for the
// engine that mean nothing: it would go on without them.
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
func (jobAnnotations) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	var errs field.ErrorList
	switch o := a.GetObject().(type) {
	case *batch.Job:
		errs = jobannotations.Validate(o.Annotations, field.NewPath("metadata", "annotations"))
	case *batch.CronJob:
		errs = jobannotations.Validate(o.Spec.JobTemplate.Annotations, field.NewPath("spec", "jobTemplate", "metadata", "annotations"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
}
