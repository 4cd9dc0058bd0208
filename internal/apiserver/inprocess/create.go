package inprocess

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// namedCreater lets a resource's Creater be called like a subresource's: it finds the name in the object.
type namedCreater struct{ rest.Creater }

func (c namedCreater) Create(ctx context.Context, _ string, obj runtime.Object, validate rest.ValidateObjectFunc, opts *metav1.CreateOptions) (runtime.Object, error) {
	return c.Creater.Create(ctx, obj, validate, opts)
}

// create stores what wire holds and returns the stored object in the hub version, owned by the caller.
func (e *endpoint) create(ctx context.Context, c call, wire *wireForm, opts metav1.CreateOptions) (runtime.Object, error) {
	if errs := validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return nil, invalidOptions("CreateOptions", errs)
	}
	opts.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	obj, err := e.unmarshal(wire)
	if err != nil {
		return nil, err
	}
	ctx, c = e.nameOfNew(ctx, c, obj)
	if err := e.prepareNew(c, obj); err != nil {
		return nil, err
	}
	e.dedupOwners(ctx, obj, beforeAdmission)
	attrs := e.attributes(c, obj, nil, admission.Create, &opts, opts.DryRun)
	if e.mutating != nil && e.mutating.Handles(admission.Create) {
		if err := e.mutating.Admit(ctx, attrs, e.objects); err != nil {
			return nil, err
		}
	}
	e.dedupOwners(ctx, obj, afterAdmission)
	return e.creater.Create(ctx, c.name, obj, rest.AdmissionToValidateObjectFunc(e.Admission, attrs, e.objects), &opts)
}

// nameOfNew completes the call with the name in the new object. A Namespace is in the namespace that it makes.
func (e *endpoint) nameOfNew(ctx context.Context, c call, obj runtime.Object) (context.Context, call) {
	if c.name == "" {
		if m, err := meta.Accessor(obj); err == nil {
			c.name = m.GetName()
		}
	}
	if c.namespace == "" && e.resource.Group == "" && e.resource.Resource == "namespaces" {
		c.namespace = c.name
		ctx = request.WithNamespace(ctx, c.namespace)
	}
	return ctx, c
}

// prepareNew takes away from a new object what only the server may set.
func (e *endpoint) prepareNew(c call, obj runtime.Object) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil //nolint:nilerr // no metadata, nothing to prepare
	}
	preserver, ok := e.storage.(rest.SubresourceObjectMetaPreserver)
	if !ok || e.subresource == "" || !preserver.PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() {
		rest.WipeObjectMetaSystemFields(m)
	}
	if err := e.ensureNamespace(c, m); err != nil {
		return err
	}
	return keepManagedFields(obj, nil)
}

func (e *endpoint) ensureNamespace(c call, m metav1.Object) error {
	return rest.EnsureObjectNamespaceMatchesRequestNamespace(rest.ExpectedNamespaceForResource(c.namespace, e.resource), m)
}

// attributes describes a request to admission plugins. Options must point to the options that the registry gets.
func (e *endpoint) attributes(c call, obj, old runtime.Object, op admission.Operation, opts runtime.Object, dryRun []string) admission.Attributes {
	return admission.NewAttributesRecord(obj, old, e.kind, c.namespace, c.name, e.resource, e.subresource, op, opts, dryrun.IsDryRun(dryRun), e.User)
}

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}
