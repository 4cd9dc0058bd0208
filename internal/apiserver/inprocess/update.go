package inprocess

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/registry/rest"
)

// update replaces an object (or, where the registry allows that, creates it) and returns the stored one in the hub version, owned by the caller.
func (e *endpoint) update(ctx context.Context, c call, wire *wireForm, opts metav1.UpdateOptions) (runtime.Object, error) {
	if errs := validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return nil, invalidOptions("UpdateOptions", errs)
	}
	opts.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	in := &replacement{endpoint: e, call: c, wire: wire, opts: &opts}
	if err := in.decode(ctx); err != nil {
		return nil, err
	}
	return e.store(ctx, c, in, &opts)
}

// store hands an update to the registry, with validating admission.
func (e *endpoint) store(ctx context.Context, c call, in rest.UpdatedObjectInfo, opts *metav1.UpdateOptions) (runtime.Object, error) {
	result, _, err := e.updater.Update(ctx, c.name, in,
		rest.AdmissionToValidateObjectFunc(e.Admission, e.attributes(c, nil, nil, admission.Create, createOptions(opts), opts.DryRun), e.objects),
		rest.AdmissionToValidateObjectUpdateFunc(e.Admission, e.attributes(c, nil, nil, admission.Update, opts, opts.DryRun), e.objects),
		false, opts)
	return result, err
}

// replacement implements rest.UpdatedObjectInfo for an object that the caller sent whole. The registry asks for it again after losing a race
// with another writer, and changes what it gets: each time it gets a freshly decoded one.
type replacement struct {
	*endpoint
	call call
	wire *wireForm
	opts *metav1.UpdateOptions
	uid  types.UID
	next runtime.Object // decoded and not yet handed out
}

var _ rest.UpdatedObjectInfo = &replacement{}

// decode makes the next object to hand out and checks that it is the one that the request names.
func (r *replacement) decode(ctx context.Context) error {
	obj, err := r.unmarshal(r.wire)
	if err != nil {
		return err
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: %v", r.call.name, err))
	}
	if err := r.checkIdentity(r.call, m); err != nil {
		return err
	}
	r.dedupOwners(ctx, obj, beforeAdmission)
	r.uid, r.next = m.GetUID(), obj
	return nil
}

// checkIdentity refuses an object with another name or namespace than the request's, and fills in a missing namespace.
func (e *endpoint) checkIdentity(c call, m metav1.Object) error {
	if err := e.ensureNamespace(c, m); err != nil {
		return err
	}
	if m.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", c.name))
	}
	if m.GetName() != c.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), c.name))
	}
	return nil
}

// Preconditions makes sure that an object that was deleted and made anew isn't taken for the one sent.
func (r *replacement) Preconditions() *metav1.Preconditions {
	if r.uid == "" {
		return nil
	}
	return &metav1.Preconditions{UID: &r.uid}
}

func (r *replacement) UpdatedObject(ctx context.Context, live runtime.Object) (runtime.Object, error) {
	if r.next == nil {
		if err := r.decode(ctx); err != nil {
			return nil, err
		}
	}
	obj := r.next
	r.next = nil
	if err := keepManagedFields(obj, live); err != nil {
		return nil, err
	}
	return obj, r.admit(ctx, r.call, obj, live, r.opts)
}

// admit shows an update to mutating admission: as a create if there is no live object.
func (e *endpoint) admit(ctx context.Context, c call, obj, live runtime.Object, opts *metav1.UpdateOptions) error {
	exists, err := hasUID(live)
	if err != nil {
		return fmt.Errorf("unexpected error when extracting UID from oldObj: %w", err)
	}
	op, attrs := admission.Update, e.attributes(c, obj, live, admission.Update, opts, opts.DryRun)
	if !exists {
		op, attrs = admission.Create, e.attributes(c, obj, nil, admission.Create, createOptions(opts), opts.DryRun)
	}
	if e.mutating != nil && e.mutating.Handles(op) {
		if err := e.mutating.Admit(ctx, attrs, e.objects); err != nil {
			return err
		}
	}
	e.dedupOwners(ctx, obj, afterAdmission)
	return nil
}

// hasUID tells a live object from the empty one that stands for none.
func hasUID(obj runtime.Object) (bool, error) {
	if obj == nil {
		return false, nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	return m.GetUID() != "", nil
}

// createOptions are the options of an update that turns out to be a create.
func createOptions(opts *metav1.UpdateOptions) *metav1.CreateOptions {
	c := &metav1.CreateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}
	c.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	return c
}
