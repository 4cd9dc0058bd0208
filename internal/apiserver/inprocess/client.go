package inprocess

import (
	"context"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// resource is one API resource as its clients of all namespaces share it. T is a pointer to its v1 type and L to its list's.
type resource[T object, L runtime.Object] struct {
	main      *endpoint // nil if the resource isn't served in-process
	sub       map[string]*endpoint
	newObject func() T
	newList   func() L
}

// newResource finds the registries of a resource and of those of its subresources that are served in-process.
func newResource[T object, L runtime.Object](b *backend, gvr schema.GroupVersionResource, newObject func() T, newList func() L, subresources ...string) (*resource[T, L], error) {
	r := &resource[T, L]{newObject: newObject, newList: newList, sub: map[string]*endpoint{}}
	var err error
	if r.main, err = b.newEndpoint(gvr, ""); err != nil || r.main == nil {
		return r, err
	}
	for _, name := range subresources {
		e, err := b.newEndpoint(gvr, name)
		if err != nil {
			return nil, err
		}
		if e != nil {
			r.sub[name] = e
		}
	}
	return r, nil
}

// remote is the part of a typed clientset's interface that all resources have.
type remote[T any, L any] interface {
	Create(ctx context.Context, obj T, opts metav1.CreateOptions) (T, error)
	Update(ctx context.Context, obj T, opts metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (T, error)
}

// statusUpdater and collectionDeleter are the parts that only some resources have. Where a resource's interface lacks one, nobody can call it.
type statusUpdater[T any] interface {
	UpdateStatus(ctx context.Context, obj T, opts metav1.UpdateOptions) (T, error)
}

type collectionDeleter interface {
	DeleteCollection(ctx context.Context, opts metav1.DeleteOptions, list metav1.ListOptions) error
}

// client serves one resource in one namespace ("" for all of them, or for a cluster-scoped resource) with the common verbs of client-go's typed
// interfaces. Like the typed client, it returns an empty object beside an error.
type client[T object, L runtime.Object] struct {
	*resource[T, L]
	namespace string
	remote    remote[T, L]
}

func newClient[T object, L runtime.Object](r *resource[T, L], namespace string, remote remote[T, L]) *client[T, L] {
	return &client[T, L]{resource: r, namespace: namespace, remote: remote}
}

// onItem says whether e can serve a request for one item of the client's namespace. What it can't serve is left to the remote client, so that
// impossible names and namespaces get the very errors of the typed client and of the server's router.
func (c *client[T, L]) onItem(e *endpoint, name string) bool {
	return name != "" && len(content.IsPathSegmentName(name)) == 0 && c.inNamespace(e)
}

// inNamespace says the same of a request that creates an item or touches a whole collection.
func (c *client[T, L]) inNamespace(e *endpoint) bool {
	return e != nil && e.namespaced == (c.namespace != "") && len(content.IsPathSegmentName(c.namespace)) == 0
}

// onCollection says the same of a read of a collection, which may span all namespaces.
func (c *client[T, L]) onCollection(e *endpoint) bool {
	return e != nil && (c.namespace == "" || c.inNamespace(e))
}

func (c *client[T, L]) Create(ctx context.Context, obj T, opts metav1.CreateOptions) (T, error) {
	e := c.main
	if isNil(obj) || !c.inNamespace(e) || e.creater == nil {
		return c.remote.Create(ctx, obj, opts)
	}
	out := c.newObject()
	err := e.send(ctx, call{verb: "create", method: "POST", namespace: c.namespace, timeout: writeTimeout}, obj,
		func(ctx context.Context, call call, wire *wireForm) error {
			result, err := e.create(ctx, call, wire, opts)
			if err != nil {
				return err
			}
			return e.toClient(result, out)
		})
	return out, err
}

func (c *client[T, L]) Update(ctx context.Context, obj T, opts metav1.UpdateOptions) (T, error) {
	if isNil(obj) || !c.onItem(c.main, obj.GetName()) || c.main.updater == nil {
		return c.remote.Update(ctx, obj, opts)
	}
	return c.update(ctx, c.main, obj, opts)
}

func (c *client[T, L]) UpdateStatus(ctx context.Context, obj T, opts metav1.UpdateOptions) (T, error) {
	e := c.sub["status"]
	if isNil(obj) || !c.onItem(e, obj.GetName()) || e.updater == nil {
		return c.remote.(statusUpdater[T]).UpdateStatus(ctx, obj, opts)
	}
	return c.update(ctx, e, obj, opts)
}

func (c *client[T, L]) update(ctx context.Context, e *endpoint, obj T, opts metav1.UpdateOptions) (T, error) {
	out := c.newObject()
	err := e.send(ctx, call{verb: "update", method: "PUT", namespace: c.namespace, name: obj.GetName(), timeout: writeTimeout}, obj,
		func(ctx context.Context, call call, wire *wireForm) error {
			result, err := e.update(ctx, call, wire, opts)
			if err != nil {
				return err
			}
			return e.toClient(result, out)
		})
	return out, err
}

func (c *client[T, L]) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (T, error) {
	e := c.patchTarget(pt, subresources)
	if !c.onItem(e, name) || e.updater == nil {
		return c.remote.Patch(ctx, name, pt, data, opts, subresources...)
	}
	out := c.newObject()
	request := call{verb: "patch", method: "PATCH", namespace: c.namespace, name: name, timeout: writeTimeout}
	err := e.do(ctx, request, func(ctx context.Context) error {
		result, err := e.patch(ctx, request, pt, data, opts)
		if err != nil {
			return err
		}
		return e.toClient(result, out)
	})
	return out, err
}

// patchTarget returns nil for server-side apply, which is about the field ownership that in-process writes don't record.
func (c *client[T, L]) patchTarget(pt types.PatchType, subresources []string) *endpoint {
	switch pt {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
	default:
		return nil
	}
	switch len(subresources) {
	case 0:
		return c.main
	case 1:
		return c.sub[subresources[0]]
	default:
		return nil
	}
}

func (c *client[T, L]) Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error {
	e := c.main
	if !c.onItem(e, name) || e.deleter == nil || isUnsafe(opts) {
		return c.remote.Delete(ctx, name, opts)
	}
	request := call{verb: "delete", method: "DELETE", namespace: c.namespace, name: name, timeout: writeTimeout}
	return e.do(ctx, request, func(ctx context.Context) error { return e.delete(ctx, request, &opts) })
}

func (c *client[T, L]) DeleteCollection(ctx context.Context, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	e := c.main
	if !c.inNamespace(e) || e.collectionDeleter == nil || isUnsafe(opts) {
		return c.remote.(collectionDeleter).DeleteCollection(ctx, opts, list)
	}
	request := call{verb: "deletecollection", method: "DELETE", namespace: c.namespace, timeout: listTimeout(list)}
	return e.do(ctx, request, func(ctx context.Context) error { return e.deleteCollection(ctx, request, &opts, list) })
}

// isUnsafe finds the deletions of unreadable objects, which need an authorization of their own.
func isUnsafe(opts metav1.DeleteOptions) bool {
	return ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false)
}

func (c *client[T, L]) Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error) {
	e := c.main
	if !c.onItem(e, name) || e.getter == nil {
		return c.remote.Get(ctx, name, opts)
	}
	out := c.newObject()
	request := call{verb: "get", method: "GET", namespace: c.namespace, name: name, timeout: readTimeout}
	err := e.do(ctx, request, func(ctx context.Context) error { return e.get(ctx, request, opts, out) })
	return out, err
}

func (c *client[T, L]) List(ctx context.Context, opts metav1.ListOptions) (L, error) {
	e := c.main
	if !c.onCollection(e) || e.lister == nil {
		return c.remote.List(ctx, opts)
	}
	out := c.newList()
	request := call{verb: "list", method: "GET", namespace: c.namespace, timeout: listTimeout(opts)}
	err := e.do(ctx, request, func(ctx context.Context) error { return e.list(ctx, opts, out) })
	return out, err
}

// listTimeout is the server's limit for a request, or the caller's own if that is shorter.
func listTimeout(opts metav1.ListOptions) time.Duration {
	if opts.TimeoutSeconds == nil || *opts.TimeoutSeconds <= 0 {
		return readTimeout
	}
	return min(readTimeout, time.Duration(*opts.TimeoutSeconds)*time.Second)
}

func (c *client[T, L]) Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	e := c.main
	if !c.onCollection(e) || e.watcher == nil {
		return c.remote.Watch(ctx, opts)
	}
	opts.Watch = true
	request := call{verb: "watch", method: "GET", namespace: c.namespace}
	return e.watch(ctx, request, opts, func() runtime.Object { return c.newObject() })
}

// send runs op as a request with obj as its body.
func (e *endpoint) send(ctx context.Context, c call, obj wireObject, op func(context.Context, call, *wireForm) error) error {
	return e.do(ctx, c, func(ctx context.Context) error {
		wire, err := e.marshal(obj)
		if err != nil {
			return err
		}
		defer e.release(wire)
		return op(ctx, c, wire)
	})
}

// isNil catches the typed nil pointers that client-go sends as an empty body.
func isNil[T object](obj T) bool { return reflect.ValueOf(obj).IsNil() }
