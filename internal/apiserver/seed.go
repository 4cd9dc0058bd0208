package apiserver

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// seeder writes default objects through the registries, which default and
// validate them. It passes by HTTP, field ownership and admission: a fresh
// server writes 150 objects, and policies aren't meant for these.
type seeder struct {
	registries registries
}

// ensure returns a task that creates the object if there is none of its name,
// and otherwise runs whenPresent, if given.
func (s *seeder) ensure(resource schema.GroupVersionResource, object runtime.Object, whenPresent task) task {
	return func(ctx context.Context) error {
		err := s.create(ctx, resource, object)
		switch {
		case err == nil:
			return nil
		case !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("write a default object of %s: %w", resource.Resource, err)
		case whenPresent == nil:
			return nil
		}
		return whenPresent(ctx)
	}
}

// create looks before it writes: on all starts but the first the object exists.
func (s *seeder) create(ctx context.Context, resource schema.GroupVersionResource, object runtime.Object) error {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	ctx = asCreation(ctx, resource, accessor)
	registry := s.registries[resource.GroupVersion()][resource.Resource]
	_, err = registry.(rest.Getter).Get(ctx, accessor.GetName(), &metav1.GetOptions{})
	if err == nil {
		return apierrors.NewAlreadyExists(resource.GroupResource(), accessor.GetName())
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	versioned := object.DeepCopyObject()
	legacyscheme.Scheme.Default(versioned)
	internal, err := legacyscheme.Scheme.ConvertToVersion(versioned, runtime.InternalGroupVersioner)
	if err != nil {
		return err
	}
	_, err = registry.(rest.Creater).Create(ctx, internal, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	return err
}

// asCreation gives a context what the registries expect of a request's.
func asCreation(ctx context.Context, resource schema.GroupVersionResource, object metav1.Object) context.Context {
	ctx = request.WithNamespace(ctx, object.GetNamespace())
	ctx = request.WithUser(ctx, &user.DefaultInfo{
		Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated},
	})
	return request.WithRequestInfo(ctx, &request.RequestInfo{
		IsResourceRequest: true,
		Verb:              "create",
		APIGroup:          resource.Group,
		APIVersion:        resource.Version,
		Resource:          resource.Resource,
		Namespace:         object.GetNamespace(),
		Name:              object.GetName(),
	})
}
