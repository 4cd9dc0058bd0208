package sharing

import (
	"context"
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/utils/lru"
)

// remembered is how many objects of a resource are known by their last version,
// and how many owners by the last of what they own. They are held for it, a few
// kilobytes each; of more, further versions share only what their owner's have
// in common.
const remembered = 1024

// Versions remembers the last versions of a resource's objects. Its methods may
// be called concurrently.
type Versions struct {
	objects *lru.Cache // types.UID, of an object or of its owner → runtime.Object
	fields  *lru.Cache // types.UID → fields.Set
}

// NewVersions remembers nothing yet.
func NewVersions() *Versions {
	return &Versions{objects: lru.New(remembered), fields: lru.New(remembered)}
}

// Share lets obj, which nobody else may have yet, share what it has in common
// with the version before it or, if that isn't known, with what its owner owned
// last. From then on nobody may change what obj points to.
func (v *Versions) Share(obj runtime.Object) {
	o, err := meta.Accessor(obj)
	if err != nil || o.GetUID() == "" {
		return
	}
	owner := ownerOf(o)
	like, ok := v.objects.Get(o.GetUID())
	if !ok && owner != "" {
		like, ok = v.objects.Get(owner)
	}
	own := reflect.ValueOf(obj).Elem()
	if ok && reflect.TypeOf(like) == reflect.TypeOf(obj) {
		share(own, reflect.ValueOf(like).Elem())
	}
	// The storage has yet to write the resource version into obj.
	seen := reflect.New(own.Type())
	seen.Elem().Set(own)
	v.objects.Add(o.GetUID(), seen.Interface())
	if owner != "" {
		v.objects.Add(owner, seen.Interface())
	}
}

func ownerOf(o metav1.Object) types.UID {
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		return ref.UID
	}
	return ""
}

// Codec returns one that shares what it decodes without being told where to put
// it, as etcd3's watches do.
func (v *Versions) Codec(c runtime.Codec) runtime.Codec { return codec{c, v} }

type codec struct {
	runtime.Codec
	versions *Versions
}

// Decode implements runtime.Decoder.
func (c codec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, gvk, err := c.Codec.Decode(data, defaults, into)
	if err == nil && into == nil {
		c.versions.Share(obj)
	}
	return obj, gvk, err
}

// Decoder returns one that shares what it decodes for lists. Its Decode doesn't:
// what that returns may be changed.
func (v *Versions) Decoder(d etcd3.Decoder) etcd3.Decoder { return decoder{d, v} }

type decoder struct {
	etcd3.Decoder
	versions *Versions
}

// DecodeListItem implements etcd3.Decoder.
func (d decoder) DecodeListItem(ctx context.Context, data []byte, rev uint64, newItem func() runtime.Object) (runtime.Object, error) {
	obj, err := d.Decoder.DecodeListItem(ctx, data, rev, newItem)
	if err == nil {
		d.versions.Share(obj)
	}
	return obj, err
}

// Attrs returns what attrs does; the fields by which an object is selected are
// those of the version before it, if they are the same.
func (v *Versions) Attrs(attrs storage.AttrFunc) storage.AttrFunc {
	return func(obj runtime.Object) (labels.Set, fields.Set, error) {
		l, f, err := attrs(obj)
		if err != nil {
			return l, f, err
		}
		o, err := meta.Accessor(obj)
		if err != nil || o.GetUID() == "" {
			return l, f, nil
		}
		if before, ok := v.fields.Get(o.GetUID()); ok && maps.Equal(before.(fields.Set), f) {
			return l, before.(fields.Set), nil
		}
		v.fields.Add(o.GetUID(), f)
		return l, f, nil
	}
}
