package inprocess

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// object is what every v1 API type offers through its pointer.
type object interface {
	runtime.Object
	metav1.Object
	wireObject
}

// wireObject is the generated protobuf codec of an API type.
type wireObject interface {
	Size() int
	MarshalToSizedBuffer(data []byte) (int, error)
	Unmarshal(data []byte) error
}

// maxPooledBuffer keeps one huge object from pinning its memory in the pool.
const maxPooledBuffer = 64 << 10

// wireForm is an object's encoding, from which it can be decoded any number of times. Nothing decoded points into it.
type wireForm struct{ data []byte }

// marshal encodes an object that a caller passed in. Going through the wire form costs little next to storing the object and gives exactly
// what the HTTP path gives: nothing shared with the caller, times cut to what the API stores, no difference between nil and empty.
func (e *endpoint) marshal(in wireObject) (*wireForm, error) {
	size := in.Size()
	if int64(size) > e.MaxRequestBytes {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", e.MaxRequestBytes))
	}
	w, ok := e.wireForms.Get().(*wireForm)
	if !ok {
		w = &wireForm{}
	}
	if cap(w.data) < size {
		w.data = make([]byte, size)
	}
	w.data = w.data[:size]
	if _, err := in.MarshalToSizedBuffer(w.data); err != nil {
		e.release(w)
		return nil, apierrors.NewBadRequest(fmt.Sprintf("encoding a %s: %v", e.kind.Kind, err))
	}
	return w, nil
}

// release lets another request use the memory of w.
func (e *endpoint) release(w *wireForm) {
	if cap(w.data) <= maxPooledBuffer {
		e.wireForms.Put(w)
	}
}

// unmarshal decodes, defaults and converts to the hub version. The result shares no memory with anything.
func (e *endpoint) unmarshal(w *wireForm) (runtime.Object, error) {
	versioned, err := e.Scheme.New(e.kind)
	if err != nil {
		return nil, err
	}
	if err := versioned.(wireObject).Unmarshal(w.data); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("decoding a %s: %v", e.kind.Kind, err))
	}
	e.Scheme.Default(versioned)
	return e.toHub(versioned)
}

// toHub converts a v1 object to the internal version. The result shares memory with it.
func (e *endpoint) toHub(versioned runtime.Object) (runtime.Object, error) {
	hub := e.storage.New()
	if err := e.Scheme.Convert(versioned, hub, e.hub); err != nil {
		return nil, err
	}
	return hub, nil
}

// toClient converts a registry's result into out, a new object or list of the v1 type. Out shares memory with the result.
func (e *endpoint) toClient(result, out runtime.Object) error {
	return e.Scheme.Convert(result, out, e.kind.GroupVersion())
}

// private returns a copy of an object that the watch cache or another watcher may hold too.
func private(obj runtime.Object) runtime.Object {
	if cached, ok := obj.(runtime.CacheableObject); ok {
		return cached.GetObject()
	}
	return obj.DeepCopyObject()
}

// keepManagedFields makes obj's record of field ownership that of live: writes through this client leave no trace in it.
func keepManagedFields(obj, live runtime.Object) error {
	objMeta, err := meta.Accessor(obj)
	if err != nil {
		return nil //nolint:nilerr // no metadata (a Binding has some, options haven't): nothing to keep
	}
	if live == nil {
		objMeta.SetManagedFields(nil)
		return nil
	}
	liveMeta, err := meta.Accessor(live)
	if err != nil {
		return err
	}
	objMeta.SetManagedFields(liveMeta.GetManagedFields())
	return nil
}
