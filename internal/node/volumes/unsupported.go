package volumes

import (
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// UnsupportedError tells that a pod asks for storage that this node can never
// give it.
type UnsupportedError struct {
	Volume string // the name in spec.volumes
	Kind   string // the API field, e.g. "nfs" or "projected.podCertificate"
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("volume %q: %s volumes are not supported by errand; use configMap, secret, projected, downwardAPI, emptyDir, hostPath, persistentVolumeClaim, ephemeral or image",
		e.Volume, e.Kind)
}

// Unsupported returns an error joining an *UnsupportedError for every volume of
// a kind that can't be made here, or nil. It depends on the pod's spec alone, so
// that a node can reject the pod before doing anything for it.
func Unsupported(pod *v1.Pod) error {
	var errs []error
	for i := range pod.Spec.Volumes {
		if err := unsupportedVolume(&pod.Spec.Volumes[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func unsupportedVolume(v *v1.Volume) error {
	if kind := unsupportedKind(v); kind != "" {
		return &UnsupportedError{Volume: v.Name, Kind: kind}
	}
	return nil
}

func unsupportedKind(v *v1.Volume) string {
	switch {
	case v.Projected != nil:
		return unsupportedProjection(v.Projected)
	case mirrorsAPI(v), v.HostPath != nil, emptyDirOf(v) != nil, v.PersistentVolumeClaim != nil, v.Ephemeral != nil, v.Image != nil:
		return ""
	}
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"awsElasticBlockStore", v.AWSElasticBlockStore != nil},
		{"azureDisk", v.AzureDisk != nil},
		{"azureFile", v.AzureFile != nil},
		{"cephfs", v.CephFS != nil},
		{"cinder", v.Cinder != nil},
		{"csi", v.CSI != nil},
		{"fc", v.FC != nil},
		{"flexVolume", v.FlexVolume != nil},
		{"flocker", v.Flocker != nil},
		{"gcePersistentDisk", v.GCEPersistentDisk != nil},
		{"gitRepo", v.GitRepo != nil},
		{"glusterfs", v.Glusterfs != nil},
		{"iscsi", v.ISCSI != nil},
		{"nfs", v.NFS != nil},
		{"photonPersistentDisk", v.PhotonPersistentDisk != nil},
		{"portworxVolume", v.PortworxVolume != nil},
		{"quobyte", v.Quobyte != nil},
		{"rbd", v.RBD != nil},
		{"scaleIO", v.ScaleIO != nil},
		{"storageos", v.StorageOS != nil},
		{"vsphereVolume", v.VsphereVolume != nil},
	} {
		if k.set {
			return k.name
		}
	}
	return "unknown"
}

func unsupportedProjection(p *v1.ProjectedVolumeSource) string {
	for _, s := range p.Sources {
		switch {
		case s.ClusterTrustBundle != nil:
			return "projected.clusterTrustBundle"
		case s.PodCertificate != nil:
			return "projected.podCertificate"
		}
	}
	return ""
}

// emptyDirOf returns the emptyDir that the volume is, nil if it is another
// kind. A volume without any source is an emptyDir (API defaulting makes it one).
func emptyDirOf(v *v1.Volume) *v1.EmptyDirVolumeSource {
	if v.VolumeSource == (v1.VolumeSource{}) {
		return &v1.EmptyDirVolumeSource{}
	}
	return v.EmptyDir
}
