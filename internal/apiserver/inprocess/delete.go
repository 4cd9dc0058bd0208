package inprocess

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/registry/rest"
)

// delete deletes an object or starts its graceful deletion. The caller's options aren't changed, though the registry fills them in.
func (e *endpoint) delete(ctx context.Context, c call, opts *metav1.DeleteOptions) error {
	opts = opts.DeepCopy()
	validate, err := e.admitDelete(c, opts)
	if err != nil {
		return err
	}
	result, _, err := e.deleter.Delete(ctx, c.name, validate, opts)
	if err != nil {
		return err
	}
	return failure(result)
}

// deleteCollection deletes all objects that list selects.
func (e *endpoint) deleteCollection(ctx context.Context, c call, opts *metav1.DeleteOptions, list metav1.ListOptions) error {
	selected, err := e.listOptions(list)
	if err != nil {
		return err
	}
	opts = opts.DeepCopy()
	validate, err := e.admitDelete(c, opts)
	if err != nil {
		return err
	}
	result, err := e.collectionDeleter.DeleteCollection(ctx, validate, opts, selected)
	if err != nil {
		return err
	}
	return failure(result)
}

// admitDelete checks the options and returns the validating admission of the objects to be deleted. A deletion isn't mutated.
func (e *endpoint) admitDelete(c call, opts *metav1.DeleteOptions) (rest.ValidateObjectFunc, error) {
	if errs := validation.ValidateDeleteOptions(opts); len(errs) > 0 {
		return nil, invalidOptions("DeleteOptions", errs)
	}
	opts.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
	attrs := e.attributes(c, nil, nil, admission.Delete, opts, opts.DryRun)
	return rest.AdmissionToValidateObjectDeleteFunc(e.Admission, attrs, e.objects), nil
}

// failure is the error in a registry's answer that is a Status, or nil.
func failure(result runtime.Object) error {
	if status, ok := result.(*metav1.Status); ok && status.Status != metav1.StatusSuccess {
		return apierrors.FromObject(status)
	}
	return nil
}
