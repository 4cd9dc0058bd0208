package apiserver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// The class is there from the start, and the users' from then on: neither a
// change nor its removal is undone by the next start.
func TestStandardClassIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{DataDir: dir, Provisioner: "errand.dev/local"}

	s, stop := startServer(t, cfg)
	classes := s.Client().StorageV1().StorageClasses()
	class, err := classes.Get(t.Context(), StandardClass, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if class.Provisioner != "errand.dev/local" || class.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" {
		t.Errorf("the class is %+v", class)
	}
	class.Annotations["storageclass.kubernetes.io/is-default-class"] = "false"
	if _, err := classes.Update(t.Context(), class, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()

	s, stop = startServer(t, cfg)
	classes = s.Client().StorageV1().StorageClasses()
	if class, err = classes.Get(t.Context(), StandardClass, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := class.Annotations["storageclass.kubernetes.io/is-default-class"]; got != "false" {
		t.Errorf("a start made the class the default again (%q)", got)
	}
	if err := classes.Delete(t.Context(), StandardClass, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()

	s, _ = startServer(t, cfg)
	if _, err := s.Client().StorageV1().StorageClasses().Get(t.Context(), StandardClass, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a start brought the deleted class back: %v", err)
	}
}

// A class can't promise what errand's volumes don't do; others' may.
func TestVolumesDontGrow(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir(), Provisioner: "errand.dev/local"})
	classes := s.Client().StorageV1().StorageClasses()
	class := func(name, provisioner string, grows bool) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, AllowVolumeExpansion: &grows}
	}
	for name, c := range map[string]struct {
		provisioner string
		grows, ok   bool
	}{
		"others":  {"disks.example", true, true},
		"fixed":   {"errand.dev/local", false, true},
		"growing": {"errand.dev/local", true, false},
	} {
		_, err := classes.Create(t.Context(), class(name, c.provisioner, c.grows), metav1.CreateOptions{})
		if (err == nil) != c.ok || err != nil && !(apierrors.IsInvalid(err) && strings.Contains(err.Error(), "allowVolumeExpansion: Forbidden: errand.dev/local can't make volumes larger")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	patch := []byte(`{"allowVolumeExpansion":true}`)
	if _, err := classes.Patch(t.Context(), "fixed", types.MergePatchType, patch, metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a class is changed so: %v", err)
	}
}

// Admission gives a claim the default class and keeps it as long as it's used.
func TestClaimsAreAdmitted(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir(), Provisioner: "errand.dev/local"})
	claims := s.Client().CoreV1().PersistentVolumeClaims("default")
	claim, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := ptr.Deref(claim.Spec.StorageClassName, ""); got != StandardClass {
		t.Errorf("the claim's class is %q", got)
	}
	if len(claim.Finalizers) != 1 || claim.Finalizers[0] != "kubernetes.io/pvc-protection" {
		t.Errorf("its finalizers are %v", claim.Finalizers)
	}
	// Nothing can make a volume larger: a wish to is refused, not ignored.
	claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("2Gi")
	if _, err := claims.Update(t.Context(), claim, metav1.UpdateOptions{}); err == nil {
		t.Error("the claim could be made larger")
	}
}
