package inprocess

import (
	"encoding/json"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
)

// mostMetadataPatch is how many bytes of patch may be looked at twice: one that takes a finalizer off has about 200.
const mostMetadataPatch = 4096

// applyToMetadata applies a JSON patch that only touches the metadata, such as one that takes a finalizer off. Just the metadata go through JSON and
// back then, whatever the rest of the object is. It returns false if the patch is of another kind, or if anything about it is odd: the whole
// object is to be patched then, which says what is wrong.
func (p patchData) applyToMetadata(live runtime.Object) (runtime.Object, bool) {
	before, ok := metadataOf(live)
	if !ok || p.patchType != types.JSONPatchType || len(p.data) > mostMetadataPatch {
		return nil, false
	}
	if odd, err := p.decodeStrict(&[]jsonPatchOperation{}); err != nil || len(odd) > 0 {
		return nil, false
	}
	operations, err := jsonpatch.DecodePatch(p.data)
	if err != nil || !onlyMetadata(operations) {
		return nil, false
	}
	after, ok := patchMetadata(before, operations)
	if !ok {
		return nil, false
	}
	obj := live.DeepCopyObject()
	to, ok := metadataOf(obj)
	if ok {
		*to = *after
	}
	return obj, ok
}

// patchMetadata applies the operations, whose paths begin with /metadata.
func patchMetadata(before *metav1.ObjectMeta, operations jsonpatch.Patch) (*metav1.ObjectMeta, bool) {
	type document struct {
		Metadata *metav1.ObjectMeta `json:"metadata"`
	}
	data, err := json.Marshal(document{before})
	if err != nil {
		return nil, false
	}
	if data, err = operations.Apply(data); err != nil {
		return nil, false
	}
	after := document{&metav1.ObjectMeta{}}
	odd, err := kjson.UnmarshalStrict(data, &after)
	return after.Metadata, err == nil && len(odd) == 0 && after.Metadata != nil
}

func metadataOf(obj runtime.Object) (*metav1.ObjectMeta, bool) {
	accessor, ok := obj.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil, false
	}
	m, ok := accessor.GetObjectMeta().(*metav1.ObjectMeta)
	return m, ok
}

// onlyMetadata says whether all operations are below /metadata.
func onlyMetadata(operations jsonpatch.Patch) bool {
	for _, op := range operations {
		path, err := op.Path()
		if err != nil || !strings.HasPrefix(path, "/metadata/") {
			return false
		}
		if from, err := op.From(); err == nil && !strings.HasPrefix(from, "/metadata/") {
			return false
		}
	}
	return true
}
