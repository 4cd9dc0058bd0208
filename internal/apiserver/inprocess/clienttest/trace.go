package clienttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// alias is a random name that the trace shows as a fixed one.
type alias struct{ actual, shown string }

// Alias makes the trace show a name that the server or the case made up as another.
func (s *Session) Alias(actual, shown string) { s.aliases = append(s.aliases, alias{actual, shown}) }

// Record notes under a name what a call returned, for the comparison with the other clients. A name is used once in a case.
func (s *Session) Record(name string, obj runtime.Object, err error) {
	s.Helper()
	s.note(name, describeObject(obj)+describeError(err))
}

// RecordError notes how a call failed, or that it didn't.
func (s *Session) RecordError(name string, err error) {
	s.Helper()
	s.note(name, describeError(err))
}

// RecordText notes anything else.
func (s *Session) RecordText(name, text string) {
	s.Helper()
	s.note(name, text)
}

func (s *Session) note(name, text string) {
	s.Helper()
	if _, ok := s.trace[name]; ok {
		s.Fatalf("the case recorded %q twice", name)
	}
	for _, a := range s.aliases {
		text = strings.ReplaceAll(text, a.actual, a.shown)
	}
	for _, r := range random {
		text = r.pattern.ReplaceAllString(text, r.shown)
	}
	s.trace[name] = text
}

// random matches what differs from one run to the next.
var random = []struct {
	pattern *regexp.Regexp
	shown   string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uid>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "<time>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4} \w+)?`), "<time>"},
	{regexp.MustCompile(`((?i:resource ?version)\\*"?: ?\\*"?)\d+( \(\d+\))?`), "$1<version>"},
	{regexp.MustCompile(`in (precondition|record) \(\d+\)`), "in $1 (<version>)"},
	{regexp.MustCompile(`,?\\*"managedFields\\*":\[[^]]*\]`), ""},
	{regexp.MustCompile(`into Go value of type (\[\])?\S+`), "into Go value of type ${1}<type>"},
	{regexp.MustCompile(`current: \d+`), "current: <version>"},
	{regexp.MustCompile(`continue: \S{20,}`), "continue: <token>"},
}

// describeObject gives an object as JSON, without the field ownership that in-process writes don't record. TypeMeta shows if it is set.
func describeObject(obj runtime.Object) string {
	data, err := json.Marshal(obj)
	if err != nil {
		return "unprintable: " + err.Error()
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return "unprintable: " + err.Error()
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", " ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(withoutNoise(v)); err != nil {
		return "unprintable: " + err.Error()
	}
	return out.String()
}

// withoutNoise drops managedFields and null fields: nil and empty are the same on the wire.
func withoutNoise(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if list, ok := value.([]any); key == "managedFields" || value == nil || ok && len(list) == 0 {
				delete(v, key)
				continue
			}
			v[key] = withoutNoise(value)
		}
	case []any:
		for i := range v {
			v[i] = withoutNoise(v[i])
		}
	}
	return v
}

// describeError shows all that a caller can find out about an error.
func describeError(err error) string {
	if err == nil {
		return ""
	}
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		return describeStatus(status.Status())
	case errors.Is(err, context.Canceled):
		return "error: canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "error: deadline exceeded"
	default:
		return fmt.Sprintf("error (%T): %v", err, err)
	}
}

func describeStatus(status metav1.Status) string {
	if status.Details != nil {
		// Causes come from a map where validation of several fields found them.
		causes := status.Details.Causes
		sort.SliceStable(causes, func(i, j int) bool { return causes[i].Field < causes[j].Field })
	}
	return "status:\n" + describeObject(&status)
}

// inOrder ranges over a table in a fixed order, so that one entry's effects on the next are the same for each client.
func inOrder[V any](table map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if !yield(name, table[name]) {
				return
			}
		}
	}
}
