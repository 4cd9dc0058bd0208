package apiserver

import (
	"context"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/batch"
	api "k8s.io/kubernetes/pkg/apis/core"
)

const schedulerNoticeName = "SchedulerNotice"

// schedulerNotice tells who makes pods for another scheduler that there is none
// here: such pods stay Pending, and nobody says why. It refuses none, for a
// scheduler is a client of the API like others, and may come.
type schedulerNotice struct{}

func registerSchedulerNotice(plugins *admission.Plugins) {
	plugins.Register(schedulerNoticeName, func(io.Reader) (admission.Interface, error) { return schedulerNotice{}, nil })
}

var _ admission.ValidationInterface = schedulerNotice{}

// Handles implements admission.Interface.
func (schedulerNotice) Handles(op admission.Operation) bool { return op == admission.Create }

// Validate implements admission.ValidationInterface.
func (schedulerNotice) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	if text := otherScheduler(a.GetObject()); text != "" {
		warning.AddWarning(ctx, "", text)
	}
	return nil
}

// otherScheduler is the warning, or "" where errand schedules the object's pods, or
// nobody has to.
func otherScheduler(obj runtime.Object) string {
	spec, path := podSpec(obj)
	if spec == nil || spec.NodeName != "" || spec.SchedulerName == "" || spec.SchedulerName == corev1.DefaultSchedulerName {
		return ""
	}
	return fmt.Sprintf("%s: errand schedules for %s only: pods for %q wait for a scheduler of your own, by that name",
		path.Child("schedulerName"), corev1.DefaultSchedulerName, spec.SchedulerName)
}

// podSpec returns what the object says of its pods, and where, nil if it makes none.
func podSpec(obj runtime.Object) (*api.PodSpec, *field.Path) {
	path := field.NewPath("spec")
	switch o := obj.(type) {
	case *api.Pod:
		return &o.Spec, path
	case *batch.Job:
		return &o.Spec.Template.Spec, path.Child("template", "spec")
	case *batch.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec, path.Child("jobTemplate", "spec", "template", "spec")
	}
	return nil, nil
}
