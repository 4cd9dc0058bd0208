package apiserver

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	storageutil "k8s.io/kubernetes/pkg/apis/storage/util"
	"k8s.io/utils/ptr"
)

const (
	// StandardClass is the name of the StorageClass that a fresh store with a
	// node gets: that of kind's and minikube's.
	StandardClass = "standard"
	// standardMade stands on the namespace kube-system once the class was made.
	standardMade = "errand.dev/standard-storage-class"
)

// standardClass binds claims at once: with one node there is nothing that
// waiting for a claim's first pod could decide better, and who looks at a claim
// sees that it is in order.
func standardClass(provisioner string) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        StandardClass,
			Annotations: map[string]string{storageutil.IsDefaultStorageClassAnnotation: "true"},
		},
		Provisioner:       provisioner,
		ReclaimPolicy:     ptr.To(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate),
	}
}

// seedStandardClass makes the class once in the life of a store. It is the
// users' from then on: one that they changed, or deleted for another default,
// stays as it is, so that the class itself can't tell whether it was ever made.
// A crash before that is noted makes it again at the next start.
func seedStandardClass(seed *seeder, client kubernetes.Interface, provisioner string) task {
	return func(ctx context.Context) error {
		system, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("see whether the StorageClass %q was made: %w", StandardClass, err)
		}
		if system.Annotations[standardMade] != "" {
			return nil
		}
		create := seed.ensure(storagev1.SchemeGroupVersion.WithResource("storageclasses"), standardClass(provisioner), nil)
		if err := create(ctx); err != nil {
			return err
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{standardMade: "made"}}})
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Patch(ctx, system.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return fmt.Errorf("note that the StorageClass %q was made: %w", StandardClass, err)
		}
		return nil
	}
}
