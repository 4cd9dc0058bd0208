package clienttest

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func patchErrorCases() []Case {
	return []Case{
		{Name: "patch/refused", Run: patchRefused},
		{Name: "patch/malformed", Run: patchMalformed},
		{Name: "patch/unknown fields", Run: patchUnknownFields},
		{Name: "patch/targets", Run: patchTargets},
	}
}

func anyError(err error) bool { return err != nil }

// patchRefused sends well-formed patches that the object can't take.
func patchRefused(s *Session) {
	s.createPod(MakeLargePod("a"))
	for name, p := range inOrder(map[string]struct {
		pt   types.PatchType
		data string
	}{
		"json: test fails":           {types.JSONPatchType, `[{"op":"test","path":"/spec/restartPolicy","value":"Always"}]`},
		"json: no such path":         {types.JSONPatchType, `[{"op":"remove","path":"/spec/nothing/here"}]`},
		"json: immutable":            {types.JSONPatchType, `[{"op":"replace","path":"/spec/restartPolicy","value":"Always"}]`},
		"json: wrong type":           {types.JSONPatchType, `[{"op":"replace","path":"/spec/activeDeadlineSeconds","value":"soon"}]`},
		"json: rename":               {types.JSONPatchType, `[{"op":"replace","path":"/metadata/name","value":"b"}]`},
		"json: remove name":          {types.JSONPatchType, `[{"op":"remove","path":"/metadata/name"}]`},
		"json: metadata differ":      {types.JSONPatchType, `[{"op":"test","path":"/metadata/uid","value":"other"},{"op":"remove","path":"/metadata/labels"}]`},
		"json: bad label":            {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/a b","value":"c"}]`},
		"json: label of a number":    {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/a","value":1}]`},
		"json: another's version":    {types.JSONPatchType, `[{"op":"replace","path":"/metadata/resourceVersion","value":"1"}]`},
		"json: another uid":          {types.JSONPatchType, `[{"op":"replace","path":"/metadata/uid","value":"other"}]`},
		"json: copied from the spec": {types.JSONPatchType, `[{"op":"copy","from":"/spec/containers","path":"/metadata/labels/a"}]`},
		"json: other kind":           {types.JSONPatchType, `[{"op":"replace","path":"/kind","value":"Node"}]`},
		"merge: immutable":           {types.MergePatchType, `{"spec":{"restartPolicy":"Always"}}`},
		"merge: wrong type":          {types.MergePatchType, `{"spec":{"activeDeadlineSeconds":"soon"}}`},
		"merge: rename":              {types.MergePatchType, `{"metadata":{"name":"b"}}`},
		"merge: move":                {types.MergePatchType, `{"metadata":{"namespace":"b"}}`},
		"merge: bad label":           {types.MergePatchType, `{"metadata":{"labels":{"a b":"c"}}}`},
		"strategic: immutable":       {types.StrategicMergePatchType, `{"spec":{"restartPolicy":"Always"}}`},
		"strategic: wrong type":      {types.StrategicMergePatchType, `{"spec":{"activeDeadlineSeconds":"soon"}}`},
		"strategic: wrong shape":     {types.StrategicMergePatchType, `{"spec":{"containers":{"a":"b"}}}`},
		"strategic: no merge key":    {types.StrategicMergePatchType, `{"spec":{"containers":[{"image":"b"}]}}`},
		"strategic: bad directive":   {types.StrategicMergePatchType, `{"spec":{"$patch":"invent"}}`},
		"strategic: rename":          {types.StrategicMergePatchType, `{"metadata":{"name":"b"}}`},
		"strategic: remove metadata": {types.StrategicMergePatchType, `{"metadata":null}`},
		"strategic: replace all":     {types.StrategicMergePatchType, `{"$patch":"replace","metadata":{"name":"a"}}`},
	}) {
		_, err := s.Pods().Patch(s.Ctx, "a", p.pt, []byte(p.data), metav1.PatchOptions{})
		s.Want(name, anyError, err)
	}
	for _, pt := range []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType} {
		data := `{}`
		if pt == types.JSONPatchType {
			data = `[]`
		}
		_, err := s.Pods().Patch(s.Ctx, "missing", pt, []byte(data), metav1.PatchOptions{})
		s.Want(string(pt)+": missing", apierrors.IsNotFound, err)
		_, err = s.Pods().Patch(s.Ctx, "missing", pt, []byte(data), metav1.PatchOptions{}, "status")
		s.Want(string(pt)+": missing status", apierrors.IsNotFound, err)
		_, err = s.Pods().Patch(s.Ctx, "a", pt, []byte(data), metav1.PatchOptions{Force: ptr.To(true)})
		s.Want(string(pt)+": options", apierrors.IsInvalid, err)
	}
}

func patchMalformed(s *Session) {
	s.createPod(MakePod("a"))
	for name, data := range inOrder(map[string]string{
		"empty": ``, "no JSON": `{`, "string": `"x"`, "number": `1`, "null": `null`, "array": `[{"op":"invent","path":"/a"}]`, "array of numbers": `[1]`,
		"object": `{"metadata":{"labels":{"a":1}}}`, "trailing": `{} {}`, "missing path": `[{"op":"add","value":1}]`,
	}) {
		for _, pt := range []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType} {
			for _, validation := range []string{metav1.FieldValidationIgnore, metav1.FieldValidationStrict, ""} {
				out, err := s.Pods().Patch(s.Ctx, "a", pt, []byte(data), metav1.PatchOptions{FieldValidation: validation})
				s.Record(string(pt)+" "+name+" "+validation, out, err)
			}
		}
	}
}

func patchUnknownFields(s *Session) {
	s.createPod(MakePod("a"))
	for name, p := range inOrder(map[string]struct {
		pt   types.PatchType
		data string
	}{
		"json":            {types.JSONPatchType, `[{"op":"add","path":"/spec/invented","value":1}]`},
		"json metadata":   {types.JSONPatchType, `[{"op":"add","path":"/metadata/invented","value":1}]`},
		"json twice":      {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels","path":"/metadata/labels","value":{}}]`},
		"json operation":  {types.JSONPatchType, `[{"op":"test","path":"/kind","value":"Pod","invented":1}]`},
		"merge":           {types.MergePatchType, `{"spec":{"invented":{"a":[1]}}}`},
		"merge twice":     {types.MergePatchType, `{"metadata":{"labels":{"a":"1","a":"2"}}}`},
		"strategic":       {types.StrategicMergePatchType, `{"spec":{"invented":1},"other":{}}`},
		"strategic twice": {types.StrategicMergePatchType, `{"metadata":{"labels":{"a":"1"}},"metadata":{"labels":{"b":"2"}}}`},
	}) {
		for _, validation := range []string{metav1.FieldValidationIgnore, metav1.FieldValidationWarn, "", metav1.FieldValidationStrict} {
			out, err := s.Pods().Patch(s.Ctx, "a", p.pt, []byte(p.data), metav1.PatchOptions{FieldValidation: validation})
			s.Record(name+" "+validation, out, err)
			s.That((err != nil) == (validation == metav1.FieldValidationStrict), "%s with %q: %v", name, validation, err)
		}
	}
}

// patchTargets sends patches where they don't belong.
func patchTargets(s *Session) {
	s.createPod(MakePod("a"))
	data := []byte(`{}`)
	_, err := s.Pods().Patch(s.Ctx, "a", "application/invented", data, metav1.PatchOptions{})
	s.Want("type", apierrors.IsUnsupportedMediaType, err)
	_, err = s.Pods().Patch(s.Ctx, "a", types.MergePatchType, data, metav1.PatchOptions{}, "invented")
	s.Want("subresource", anyError, err)
	_, err = s.Pods().Patch(s.Ctx, "a", types.MergePatchType, data, metav1.PatchOptions{}, "status", "more")
	s.Want("two subresources", anyError, err)
	_, err = s.Pods().Patch(s.Ctx, "a", types.MergePatchType, data, metav1.PatchOptions{}, "binding")
	s.Want("binding", anyError, err)
	_, err = s.Pods().Patch(s.Ctx, "", types.MergePatchType, data, metav1.PatchOptions{})
	s.Want("no name", anyError, err)
	_, err = s.CoreV1().Pods("").Patch(s.Ctx, "a", types.MergePatchType, data, metav1.PatchOptions{})
	s.Want("no namespace", anyError, err)
}
