package inprocess

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// maxJSONPatchOperations is the server's limit for one JSON patch.
const maxJSONPatchOperations = 10000

// patchData is a patch as sent, with what to do about unknown fields in it.
type patchData struct {
	*endpoint
	patchType types.PatchType
	data      []byte
	strict    bool          // look for unknown and duplicate fields in the patch itself
	unknown   unknownFields // what to do about them, and about those in the patched object
}

// apply returns live, an object of the hub version, with the patch applied. Live stays as it is and shares no memory with the result.
func (p patchData) apply(ctx context.Context, live runtime.Object) (runtime.Object, error) {
	if p.patchType == types.StrategicMergePatchType {
		return p.applyStrategic(ctx, live)
	}
	return p.applyJSON(ctx, live)
}

// applyJSON patches the JSON form of the object.
func (p patchData) applyJSON(ctx context.Context, live runtime.Object) (runtime.Object, error) {
	if obj, ok := p.applyToMetadata(live); ok {
		return obj, nil
	}
	before, err := runtime.Encode(p.patchCodec, live)
	if err != nil {
		return nil, err
	}
	after, found, err := p.patchJSON(before)
	if err != nil {
		return nil, err
	}
	codec := p.patchCodec
	if p.unknown == ignoreUnknown {
		codec = p.lenient
	}
	obj := p.storage.New()
	err = runtime.DecodeInto(codec, after, obj)
	return obj, p.unknown.settle(ctx, found, err, func() string { return string(after) })
}

// patchJSON applies a JSON or merge patch and also returns what is wrong with the patch when looked at strictly.
func (p patchData) patchJSON(before []byte) (after []byte, found []error, err error) {
	if p.patchType == types.MergePatchType {
		if found, err = p.decodeStrict(&map[string]any{}); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		after, err = jsonpatch.MergePatch(before, p.data)
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			err = apierrors.NewBadRequest(err.Error())
		}
		return after, found, err
	}
	if found, err = p.decodeStrict(&[]jsonPatchOperation{}); err != nil {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	for i := range found {
		found[i] = fmt.Errorf("json patch %w", found[i])
	}
	operations, err := jsonpatch.DecodePatch(p.data)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(operations) > maxJSONPatchOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxJSONPatchOperations, len(operations)))
	}
	after, err = operations.Apply(before)
	if err != nil {
		return nil, nil, unprocessable(err)
	}
	return after, found, nil
}

// jsonPatchOperation has the fields that RFC 6902 knows, to find the others.
type jsonPatchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// decodeStrict decodes the patch into v to find unknown and duplicate fields in it.
func (p patchData) decodeStrict(v any) (found []error, err error) {
	if !p.strict {
		return nil, nil
	}
	return kjson.UnmarshalStrict(p.data, v)
}

// applyStrategic patches the object as a map, merging lists by their keys.
func (p patchData) applyStrategic(ctx context.Context, live runtime.Object) (runtime.Object, error) {
	versioned, err := p.Scheme.New(p.kind)
	if err != nil {
		return nil, err
	}
	if err := p.toClient(live, versioned); err != nil {
		return nil, err
	}
	patch, found, err := p.strategicMap()
	if err != nil {
		return nil, err
	}
	out, err := p.mergeStrategic(ctx, versioned, patch, found)
	if err != nil {
		return nil, err
	}
	p.Scheme.Default(out)
	return p.toHub(out)
}

// strategicMap decodes the patch, and also returns what is wrong with it when looked at strictly.
func (p patchData) strategicMap() (patch map[string]any, found []error, err error) {
	patch = map[string]any{}
	if !p.strict {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.data, &patch)
	} else {
		found, err = kjson.UnmarshalStrict(p.data, &patch)
	}
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	return patch, found, nil
}

// mergeStrategic returns versioned, an object of the v1 type, with the patch merged into a new object. Merging consumes the patch.
func (p patchData) mergeStrategic(ctx context.Context, versioned runtime.Object, patch map[string]any, found []error) (runtime.Object, error) {
	before, err := runtime.DefaultUnstructuredConverter.ToUnstructured(versioned)
	if err != nil {
		return nil, err
	}
	out, err := p.Scheme.New(p.kind)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergeMapPatch(before, patch, out)
	if err != nil {
		return nil, strategicError(err)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(after, out, p.unknown != ignoreUnknown)
	return out, p.unknown.settle(ctx, found, err, func() string { return fmt.Sprintf("%+v", patch) })
}

// strategicError tells a patch that is no good by itself from one that doesn't fit the object.
func strategicError(err error) error {
	for _, bad := range []error{
		mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat,
	} {
		if errors.Is(err, bad) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if errors.Is(err, mergepatch.ErrNoListOfLists) || errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys) {
		return unprocessable(err)
	}
	return err
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}
