package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

// claimName is the name of the claim that the volume leads to, "" if it is of
// another kind.
func claimName(pod *v1.Pod, v *v1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, v)
	}
	return ""
}

// setupClaim finds what the volume's claim is bound to.
func (m *Manager) setupClaim(ctx context.Context, st *podState, r request) (Volume, error) {
	claim, err := m.claim(ctx, st, r)
	if err != nil {
		return Volume{}, err
	}
	pv, err := m.persistentVolume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return Volume{}, err
	}
	if err := checkBound(claim, pv); err != nil {
		return Volume{}, err
	}
	vol, err := openPersistent(pv)
	if err != nil {
		return Volume{}, fmt.Errorf("persistentvolume %q: %w", pv.Name, err)
	}
	asked := r.vol.PersistentVolumeClaim
	vol.ReadOnly = asked != nil && asked.ReadOnly
	return vol, handOver(st, r, vol)
}

// claim returns the volume's claim, which must be the pod's own if the volume is
// ephemeral.
func (m *Manager) claim(ctx context.Context, st *podState, r request) (*v1.PersistentVolumeClaim, error) {
	namespace := r.pod.Namespace
	claim, err := readObject(st, objectKey{kindClaim, namespace, claimName(r.pod, r.vol)}, reader[*v1.PersistentVolumeClaim]{
		cached: m.cfg.Claims.Lister().PersistentVolumeClaims(namespace).Get,
		live: func(name string) (*v1.PersistentVolumeClaim, error) {
			return m.cfg.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		immutable: func(*v1.PersistentVolumeClaim) bool { return false },
	})
	if err != nil {
		return nil, err
	}
	if r.vol.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(r.pod, claim); err != nil {
			return nil, err
		}
	}
	if claim.DeletionTimestamp != nil && r.pod.Status.Phase != v1.PodRunning {
		// Its protection counts on no pod beginning to use it.
		return nil, fmt.Errorf("can't start pod because PVC %s/%s is being deleted", namespace, claim.Name)
	}
	if !isBound(claim) {
		return nil, fmt.Errorf("persistentvolumeclaim %q is not bound: it is %s", claim.Name, claim.Status.Phase)
	}
	return claim, nil
}

// isBound tells that the claim has its volume, and the volume knows it. The
// scheduler goes by the annotation, too: the phase follows a moment later.
func isBound(claim *v1.PersistentVolumeClaim) bool {
	completed := metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) && claim.Status.Phase != v1.ClaimLost
	return claim.Spec.VolumeName != "" && (completed || claim.Status.Phase == v1.ClaimBound)
}

// persistentVolume reads the live object where the cache is behind the claims'.
func (m *Manager) persistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	pv, err := m.cfg.Volumes.Lister().Get(name)
	if apierrors.IsNotFound(err) {
		pv, err = m.cfg.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("read persistentvolume %q: %w", name, err)
	}
	return pv, nil
}

// checkBound guards against a claim that names a volume which is another's.
func checkBound(claim *v1.PersistentVolumeClaim, pv *v1.PersistentVolume) error {
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return fmt.Errorf("persistentvolume %q is not bound to persistentvolumeclaim %q, which names it", pv.Name, claim.Name)
	}
	if ptr.Deref(pv.Spec.VolumeMode, v1.PersistentVolumeFilesystem) != v1.PersistentVolumeFilesystem {
		return fmt.Errorf("persistentvolume %q has volumeMode %s: errand supports Filesystem only", pv.Name, *pv.Spec.VolumeMode)
	}
	if len(pv.Spec.MountOptions) > 0 {
		return fmt.Errorf("persistentvolume %q has mountOptions, which errand does not support", pv.Name)
	}
	return nil
}

// openPersistent finds the directory that a PersistentVolume stands for.
func openPersistent(pv *v1.PersistentVolume) (Volume, error) {
	switch src := &pv.Spec.PersistentVolumeSource; {
	case src.HostPath != nil:
		return setupHostPath(src.HostPath)
	case src.Local != nil:
		return setupLocal(src.Local)
	}
	return Volume{}, errors.New("its kind is not supported by errand: only hostPath and local PersistentVolumes are")
}

// setupLocal takes directories: to mount a block device there is another's work.
func setupLocal(src *v1.LocalVolumeSource) (Volume, error) {
	if slices.Contains(strings.Split(src.Path, "/"), "..") {
		return Volume{}, fmt.Errorf("invalid local volume path %q: must not contain '..'", src.Path)
	}
	// A link is followed once, and here: what is handed to the pod's group must be
	// what is mounted.
	path, err := filepath.EvalSymlinks(src.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, fmt.Errorf("path %q does not exist", src.Path)
	}
	if err != nil {
		return Volume{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Volume{}, err
	}
	if !info.IsDir() {
		return Volume{}, fmt.Errorf("path %q is not a directory: errand does not mount devices", src.Path)
	}
	return Volume{HostPath: path, Managed: true}, nil
}

// handOver gives the volume to the pod's group, once: going through what it holds
// may take long. As in the kubelet, what is the host's, or only read, stays as
// it is.
func handOver(st *podState, r request, vol Volume) error {
	group := fsGroup(r.pod)
	if group == nil || !vol.Managed || vol.ReadOnly || st.owned[r.vol.Name] {
		return nil
	}
	policy := r.pod.Spec.SecurityContext.FSGroupChangePolicy
	if ptr.Deref(policy, v1.FSGroupChangeAlways) == v1.FSGroupChangeOnRootMismatch {
		fits, err := rootFits(vol.HostPath, *group)
		if err != nil || fits {
			return err
		}
	}
	if err := setGroup(vol.HostPath, group, false); err != nil {
		return fmt.Errorf("applyFSGroup failed for vol %s: %w", r.vol.Name, err)
	}
	st.owned[r.vol.Name] = true
	return nil
}
