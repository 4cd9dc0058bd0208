package apiserver

import (
	"context"
	"maps"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/utils/lru"

	"errand.dev/errand/internal/sharing"
)

// remembered is how many objects of a kind a watch cache knows by their last
// version: more than there are pods that have ended before the oldest of them goes,
// so that its deletion shares its memory, too. The cache holds them anyway.
const remembered = 16_384

// sharedVersions lets what one watch cache holds share memory.
type sharedVersions struct {
	objects *sharing.Versions
	fields  *lru.Cache // types.UID → fields.Set
}

func newSharedVersions() *sharedVersions {
	return &sharedVersions{objects: sharing.NewVersions(remembered), fields: lru.New(remembered)}
}

// codec returns one that shares what it decodes without being told where to put
// it, as etcd3's watches do.
func (v *sharedVersions) codec(c runtime.Codec) runtime.Codec { return sharingCodec{c, v.objects} }

type sharingCodec struct {
	runtime.Codec
	versions *sharing.Versions
}

// Decode implements runtime.Decoder.
func (c sharingCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, gvk, err := c.Codec.Decode(data, defaults, into)
	if err == nil && into == nil {
		c.versions.Share(obj)
	}
	return obj, gvk, err
}

// decoder returns one that shares what it decodes for lists. Its Decode doesn't:
// what that returns may be changed.
func (v *sharedVersions) decoder(d etcd3.Decoder) etcd3.Decoder { return sharingDecoder{d, v.objects} }

type sharingDecoder struct {
	etcd3.Decoder
	versions *sharing.Versions
}

// DecodeListItem implements etcd3.Decoder.
func (d sharingDecoder) DecodeListItem(ctx context.Context, data []byte, rev uint64, newItem func() runtime.Object) (runtime.Object, error) {
	obj, err := d.Decoder.DecodeListItem(ctx, data, rev, newItem)
	if err == nil {
		d.versions.Share(obj)
	}
	return obj, err
}

// attrs returns what f does; the fields by which an object is selected are those
// of the version before it, if they are the same.
func (v *sharedVersions) attrs(f storage.AttrFunc) storage.AttrFunc {
	return func(obj runtime.Object) (labels.Set, fields.Set, error) {
		l, set, err := f(obj)
		if err != nil {
			return l, set, err
		}
		o, err := meta.Accessor(obj)
		if err != nil || o.GetUID() == "" {
			return l, set, nil
		}
		if before, ok := v.fields.Get(o.GetUID()); ok && maps.Equal(before.(fields.Set), set) {
			return l, before.(fields.Set), nil
		}
		v.fields.Add(o.GetUID(), set)
		return l, set, nil
	}
}
