package apiserver

import (
	"context"
	"fmt"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
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

// put returns a task that makes the object be there as it is wanted. amend is
// given the one that there is and the one that is wanted, both of the internal
// version and its own to change; it returns the former as it should be, or nil
// where that one must give way.
func (s *seeder) put(resource schema.GroupVersionResource, object runtime.Object, amend func(have, want runtime.Object) runtime.Object) task {
	return func(ctx context.Context) error {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return err
		}
		have, err := s.get(ctx, resource, accessor)
		if err != nil {
			return err
		}
		if have != nil {
			want, err := internalOf(object)
			if err != nil {
				return err
			}
			amended := amend(have.DeepCopyObject(), want)
			switch {
			case apiequality.Semantic.DeepEqual(have, amended):
				return nil
			case amended != nil:
				return s.update(ctx, resource, amended)
			}
			if err := s.remove(resource, accessor)(ctx); err != nil {
				return err
			}
		}
		return s.ensure(resource, object, nil)(ctx)
	}
}

func (s *seeder) update(ctx context.Context, resource schema.GroupVersionResource, object runtime.Object) error {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	accessor.SetResourceVersion("") // whatever else has changed
	_, _, err = s.registry(resource).(rest.Updater).Update(asCreation(ctx, resource, accessor), accessor.GetName(),
		rest.DefaultUpdatedObjectInfo(object), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("update a default object of %s: %w", resource.Resource, err)
	}
	return nil
}

// remove returns a task that deletes the object of that name, if there is one.
func (s *seeder) remove(resource schema.GroupVersionResource, object metav1.Object) task {
	return func(ctx context.Context) error {
		registry := s.registry(resource).(rest.GracefulDeleter)
		_, _, err := registry.Delete(asCreation(ctx, resource, object), object.GetName(), rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete a default object of %s: %w", resource.Resource, err)
		}
		return nil
	}
}

// get returns the object of that name, of the internal version, or nil.
func (s *seeder) get(ctx context.Context, resource schema.GroupVersionResource, object metav1.Object) (runtime.Object, error) {
	have, err := s.registry(resource).(rest.Getter).Get(asCreation(ctx, resource, object), object.GetName(), &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a default object of %s: %w", resource.Resource, err)
	}
	return have, nil
}

// create looks before it writes: on all starts but the first the object exists.
func (s *seeder) create(ctx context.Context, resource schema.GroupVersionResource, object runtime.Object) error {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	have, err := s.get(ctx, resource, accessor)
	if err != nil {
		return err
	}
	if have != nil {
		return apierrors.NewAlreadyExists(resource.GroupResource(), accessor.GetName())
	}
	internal, err := internalOf(object)
	if err != nil {
		return err
	}
	_, err = s.registry(resource).(rest.Creater).Create(asCreation(ctx, resource, accessor), internal, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	return err
}

func (s *seeder) registry(resource schema.GroupVersionResource) rest.Storage {
	return s.registries[resource.GroupVersion()][resource.Resource]
}

// internalOf is the object with its defaults, in the version that registries take.
func internalOf(object runtime.Object) (runtime.Object, error) {
	versioned := object.DeepCopyObject()
	legacyscheme.Scheme.Default(versioned)
	return legacyscheme.Scheme.ConvertToVersion(versioned, runtime.InternalGroupVersioner)
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
