package inprocess

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
)

// patch applies a JSON, merge or strategic merge patch to an object and returns the stored one in the hub version, owned by the caller.
func (e *endpoint) patch(ctx context.Context, c call, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	if int64(len(data)) > e.MaxRequestBytes {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", e.MaxRequestBytes))
	}
	if errs := validation.ValidatePatchOptions(&opts, pt); len(errs) > 0 {
		return nil, invalidOptions("PatchOptions", errs)
	}
	if !json.Valid(data) {
		return nil, apierrors.NewBadRequest("invalid JSON patch")
	}
	updateOpts := &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}
	updateOpts.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	in := &patched{target: e, call: c, opts: updateOpts, patch: patchData{
		endpoint:  e,
		patchType: pt,
		data:      data,
		strict:    opts.FieldValidation != metav1.FieldValidationIgnore,
		unknown:   e.unknownFields(opts.FieldValidation),
	}}
	return e.store(ctx, c, in, updateOpts)
}

// patched implements rest.UpdatedObjectInfo for an object that the caller sent a patch of. After losing a race with another writer the
// registry asks again, with the newer object.
type patched struct {
	target *endpoint
	call   call
	patch  patchData
	opts   *metav1.UpdateOptions
}

var _ rest.UpdatedObjectInfo = &patched{}

// Preconditions are in the patch itself: the registry refuses a metadata.uid or resourceVersion in it that isn't the live object's.
func (p *patched) Preconditions() *metav1.Preconditions { return nil }

func (p *patched) UpdatedObject(ctx context.Context, live runtime.Object) (runtime.Object, error) {
	exists, err := hasUID(live)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, apierrors.NewNotFound(p.target.resource.GroupResource(), p.call.name)
	}
	obj, err := p.patch.apply(ctx, live)
	if err != nil {
		return nil, err
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: %v", p.call.name, err))
	}
	if err := p.target.checkIdentity(p.call, m); err != nil {
		return nil, err
	}
	if err := keepManagedFields(obj, live); err != nil {
		return nil, err
	}
	return obj, p.target.admit(ctx, p.call, obj, live, p.opts)
}

// unknownFields says what becomes of fields in a patch that the API doesn't know, and of duplicate ones.
type unknownFields int

const (
	ignoreUnknown unknownFields = iota // not looked for in the object
	warnUnknown
	refuseUnknown
)

// unknownFields reads the request's fieldValidation, whose default is to warn. With nobody to warn, nothing need be looked for.
func (e *endpoint) unknownFields(directive string) unknownFields {
	switch {
	case directive == metav1.FieldValidationStrict:
		return refuseUnknown
	case directive == metav1.FieldValidationIgnore || e.Warnings == nil:
		return ignoreUnknown
	default:
		return warnUnknown
	}
}

// settle decides about what strict decoding found: found in the patch, and found in the object, whose decoding returned err. The latter is
// also any other decoding error, which trumps. Shown is what the refusal shows of the request.
func (u unknownFields) settle(ctx context.Context, found []error, err error, shown func() string) error {
	strict, isStrict := runtime.AsStrictDecodingError(err)
	if err != nil && !isStrict {
		return invalidPatch(shown(), err)
	}
	if isStrict {
		found = append(found, strict.Errors()...)
	}
	if len(found) == 0 || u == ignoreUnknown {
		return nil
	}
	if u == refuseUnknown {
		return invalidPatch(shown(), runtime.NewStrictDecodingError(found))
	}
	for _, err := range found {
		warning.AddWarning(ctx, "", err.Error())
	}
	return nil
}

func invalidPatch(shown string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), shown, err.Error())})
}
