package apiserver

import (
	"context"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/apis/storage"
	"k8s.io/utils/ptr"
)

const volumeGrowthName = "VolumeGrowth"

// volumeGrowth refuses StorageClasses that promise to make errand's own volumes
// larger: claims would be let through that ask for it, and nothing come of them.
type volumeGrowth struct{ provisioner string }

func registerVolumeGrowth(provisioner string) func(*admission.Plugins) {
	return func(plugins *admission.Plugins) {
		plugins.Register(volumeGrowthName, func(io.Reader) (admission.Interface, error) { return volumeGrowth{provisioner}, nil })
	}
}

var _ admission.ValidationInterface = volumeGrowth{}

// Handles implements admission.Interface.
func (volumeGrowth) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.ValidationInterface. A class that stands already may be changed otherwise.
func (v volumeGrowth) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	now, ok := a.GetObject().(*storage.StorageClass)
	if !ok || now.Provisioner != v.provisioner || !ptr.Deref(now.AllowVolumeExpansion, false) {
		return nil
	}
	if before, ok := a.GetOldObject().(*storage.StorageClass); ok && ptr.Deref(before.AllowVolumeExpansion, false) {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), field.ErrorList{field.Forbidden(
		field.NewPath("allowVolumeExpansion"), v.provisioner+" can't make volumes larger: they are directories, which have no size")})
}
