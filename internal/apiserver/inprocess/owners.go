package inprocess

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers"
	"k8s.io/apiserver/pkg/warning"
)

// The warning about duplicate owners says on which side of mutating admission they were found.
const (
	beforeAdmission = handlers.DuplicateOwnerReferencesWarningFormat
	afterAdmission  = handlers.DuplicateOwnerReferencesAfterMutatingAdmissionWarningFormat
)

// dedupOwners drops repeated owner references of obj and warns about them.
func (e *endpoint) dedupOwners(ctx context.Context, obj runtime.Object, format string) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	refs := m.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	kept := make([]metav1.OwnerReference, 0, len(refs))
	var dropped []string
	for _, ref := range refs {
		if containsOwner(kept, ref) {
			dropped = append(dropped, string(ref.UID))
			continue
		}
		kept = append(kept, ref)
	}
	if len(dropped) > 0 {
		warning.AddWarning(ctx, "", fmt.Sprintf(format, strings.Join(dropped, ", ")))
		m.SetOwnerReferences(kept)
	}
}

func containsOwner(refs []metav1.OwnerReference, ref metav1.OwnerReference) bool {
	for i := range refs {
		if refs[i].UID == ref.UID && equality.Semantic.DeepEqual(refs[i], ref) {
			return true
		}
	}
	return false
}
