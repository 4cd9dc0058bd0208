package sharing

import (
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
)

// Newest is how many objects a cache should have remembered that holds but the
// newest version of each: enough to share what an owner's have in common.
const Newest = 1024

// Versions remembers the last versions of objects. Its methods may be called
// concurrently.
type Versions struct {
	objects *lru.Cache // key → runtime.Object
}

// key is of an object by its own UID, or of the last of a type by its owner's.
type key struct {
	kind reflect.Type
	uid  types.UID
}

// NewVersions remembers nothing yet, and at most that many objects by their last
// version, and owners by the last of what they own. They are held for it, some
// kilobytes each; of more, further versions share only what their owner's have in
// common.
func NewVersions(remembered int) *Versions { return &Versions{objects: lru.New(remembered)} }

// Share lets obj, which nobody else may have yet, share what it has in common
// with the version before it or, if that isn't known, with what its owner owned
// last. From then on nobody may change what obj points to.
func (v *Versions) Share(obj runtime.Object) {
	o, err := meta.Accessor(obj)
	if err != nil || o.GetUID() == "" {
		return
	}
	own := reflect.ValueOf(obj).Elem()
	self, owner := key{own.Type(), o.GetUID()}, key{own.Type(), ownerOf(o)}
	like, ok := v.objects.Get(self)
	if !ok && owner.uid != "" {
		like, ok = v.objects.Get(owner)
	}
	if ok {
		share(own, reflect.ValueOf(like).Elem())
	}
	// Who gave obj may still set its own fields: a storage, the resource version.
	seen := reflect.New(own.Type())
	seen.Elem().Set(own)
	v.objects.Add(self, seen.Interface())
	if owner.uid != "" {
		v.objects.Add(owner, seen.Interface())
	}
}

func ownerOf(o metav1.Object) types.UID {
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		return ref.UID
	}
	return ""
}
