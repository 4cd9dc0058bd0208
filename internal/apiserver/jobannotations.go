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
// have errand's prefix and a name that there isn't, or stand where the engine doesn't
// look.
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
	now, before := annotationsOf(a.GetObject()), annotationsOf(a.GetOldObject())
	// What stands already mustn't keep the object from being changed otherwise, such as by losing its finalizers.
	said := news(now.engine.annotations, before.engine.annotations)
	for _, text := range jobannotations.Unknown(said, now.engine.path) {
		warning.AddWarning(ctx, "", text)
	}
	for i, place := range now.others {
		var old map[string]string
		if i < len(before.others) {
			old = before.others[i].annotations
		}
		for _, text := range jobannotations.Misplaced(news(place.annotations, old), place.path, now.engine.path) {
			warning.AddWarning(ctx, "", text)
		}
	}
	if errs := jobannotations.Validate(said, now.engine.path); len(errs) > 0 {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
	}
	return nil
}

// news returns what of now wasn't so before.
func news(now, before map[string]string) map[string]string {
	said := maps.Clone(now)
	maps.DeleteFunc(said, func(name, value string) bool { old, ok := before[name]; return ok && old == value })
	return said
}

// place is where annotations stand in an object.
type place struct {
	annotations map[string]string
	path        *field.Path
}

// places are those of an object that the engine reads, and those where it doesn't look.
type places struct {
	engine place
	others []place
}

func annotationsOf(obj runtime.Object) places {
	root, template := field.NewPath("metadata", "annotations"), field.NewPath("spec", "template", "metadata", "annotations")
	switch o := obj.(type) {
	case *batch.Job:
		return places{place{o.Annotations, root}, []place{{o.Spec.Template.Annotations, template}}}
	case *batch.CronJob:
		job := &o.Spec.JobTemplate
		return places{place{job.Annotations, field.NewPath("spec", "jobTemplate", "metadata", "annotations")}, []place{
			{o.Annotations, root},
			{job.Spec.Template.Annotations, field.NewPath("spec", "jobTemplate", "spec", "template", "metadata", "annotations")},
		}}
	}
	return places{}
}
