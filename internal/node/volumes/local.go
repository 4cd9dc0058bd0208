package volumes

import v1 "k8s.io/api/core/v1"

// LocalDirs are the directories, by volume name, of the pod's volumes that take
// room on the disk and go with the pod: what counts as its ephemeral storage.
func (m *Manager) LocalDirs(pod *v1.Pod) map[string]string {
	dirs := map[string]string{}
	for i := range pod.Spec.Volumes {
		switch vol := &pod.Spec.Volumes[i]; {
		case vol.EmptyDir != nil && vol.EmptyDir.Medium == v1.StorageMediumDefault:
			dirs[vol.Name] = m.volumeDir(pod.UID, pluginEmptyDir, vol.Name)
		case vol.ConfigMap != nil:
			dirs[vol.Name] = m.volumeDir(pod.UID, pluginConfigMap, vol.Name)
		}
	}
	return dirs
}
