package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
)

var jobKind = batchv1.SchemeGroupVersion.WithKind("Job")

// readJob reads the one Job of a manifest: a file, a URL, or stdin as "-".
func readJob(path string, stdin io.Reader) (*batchv1.Job, error) {
	const standardInput = "standard input"
	builder, source := resource.NewLocalBuilder().Unstructured().Flatten(), path
	if path == "-" {
		builder, source = builder.Stream(stdin, standardInput), standardInput
	} else {
		builder = builder.FilenameParam(false, &resource.FilenameOptions{Filenames: []string{path}})
	}
	found, err := builder.Do().Infos()
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", unreadable(err))
	}
	object, err := onlyJob(source, found)
	if err != nil {
		return nil, err
	}
	var job batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &job, true); err != nil {
		return nil, fmt.Errorf("%s: %w", source, illTyped(object, err))
	}
	return &job, nil
}

// unreadable says in words of manifests what upstream's reader says in words of its code, for its errors are texts.
func unreadable(err error) error {
	for _, known := range []struct{ before, after, instead string }{
		{`unable to decode "`, `": Object 'Kind' is missing in '`, "has no kind: each of its objects needs apiVersion and kind, as in apiVersion: batch/v1, kind: Job"},
		{`unable to decode "`, `": json: cannot unmarshal`, "holds no Kubernetes object: those begin with apiVersion and kind, as in apiVersion: batch/v1, kind: Job"},
		{`error parsing `, `: error converting YAML to JSON: yaml: `, "is not YAML: "},
		{`error parsing `, `: `, "is neither YAML nor JSON: "},
	} {
		rest, begins := strings.CutPrefix(err.Error(), known.before)
		source, detail, found := strings.Cut(rest, known.after)
		if !begins || !found {
			continue
		}
		if !strings.HasSuffix(known.instead, ": ") {
			detail = ""
		}
		return fmt.Errorf("%s %s%s", source, known.instead, detail)
	}
	return err
}

// onlyJob returns the one object of a manifest, if that is a Job, and says otherwise what there is and what to do.
func onlyJob(source string, found []*resource.Info) (*unstructured.Unstructured, error) {
	var jobs, others []string
	var job *unstructured.Unstructured
	for _, info := range found {
		object, ok := info.Object.(*unstructured.Unstructured)
		if ok && object.GroupVersionKind() == jobKind {
			job, jobs = object, append(jobs, nameOf("job", object))
		} else {
			others = append(others, inWords(info.Object))
		}
	}
	const apply = "errand kubectl apply"
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("%s holds no objects, and errand run takes one Job of %s", source, jobKind.GroupVersion())
	case len(jobs) == 0:
		return nil, fmt.Errorf("%s holds %s, and errand run takes a Job of %s", source, strings.Join(others, ", "), jobKind.GroupVersion())
	case len(jobs) > 1:
		return nil, fmt.Errorf("%s holds %d Jobs, and errand run takes one: give it a manifest for each, or make them all by %s, and wait for them by errand wait %s",
			source, len(jobs), apply, strings.Join(jobs, " "))
	case len(others) > 0:
		return nil, fmt.Errorf("%s holds more than its Job, which is all that errand run takes: %s. Make the rest by %s first, and give errand run a manifest of the Job alone",
			source, strings.Join(others, ", "), apply)
	}
	return job, nil
}

// inWords names an object for whoever wrote it.
func inWords(object runtime.Object) string {
	kind := object.GetObjectKind().GroupVersionKind()
	version := kind.GroupVersion().String()
	if version == "" {
		return fmt.Sprintf("a %s without an apiVersion", kind.Kind)
	}
	if accessor, err := meta.Accessor(object); err == nil && (accessor.GetName() != "" || accessor.GetGenerateName() != "") {
		return fmt.Sprintf("%s of %s", nameOf(kind.Kind, object), version)
	}
	return fmt.Sprintf("a %s of %s", kind.Kind, version)
}

func nameOf(kind string, object runtime.Object) string {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return kind
	}
	if accessor.GetName() == "" {
		return kind + "/" + accessor.GetGenerateName() + "…"
	}
	return kind + "/" + accessor.GetName()
}

// illTyped names the field that holds something else than it can, if that is what's wrong; the converter speaks of Go's types alone.
func illTyped(object *unstructured.Unstructured, err error) error {
	data, marshalErr := object.MarshalJSON()
	if marshalErr != nil {
		return err
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(json.Unmarshal(data, &batchv1.Job{}), &wrong) {
		value, _, _ := strings.Cut(wrong.Value, " ") // "number 5"
		return fmt.Errorf("%s: %s stands where %s belongs", wrong.Field, jsonTypes[value], goTypes[wrong.Type.Kind()])
	}
	return err
}

// jsonTypes are encoding/json's names of a value's type, in YAML's words; goTypes what fields are that take them.
var (
	jsonTypes = map[string]string{"array": "a list", "object": "an object", "string": "a string", "number": "a number", "bool": "true or false"}
	goTypes   = map[reflect.Kind]string{
		reflect.Slice: "a list", reflect.Struct: "an object", reflect.Map: "an object", reflect.String: "a string",
		reflect.Int32: "a whole number", reflect.Int64: "a whole number", reflect.Bool: "true or false",
	}
)
