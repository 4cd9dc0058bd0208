package volumes

import (
	"errors"
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// files is what a data volume is to hold: path below its root → file.
type files = map[string]volumeutil.FileProjection

// defaults are the mode and owner of files that don't say their own.
type defaults struct {
	mode *int32
	user *int64
}

// fileMode is API defaulting's 0644 where a test or an old object left it unset.
func (d defaults) fileMode(own *int32) int32 {
	switch {
	case own != nil:
		return *own
	case d.mode != nil:
		return *d.mode
	}
	return v1.ConfigMapVolumeSourceDefaultMode
}

func (d defaults) file(data []byte, mode *int32, user *int64) volumeutil.FileProjection {
	return volumeutil.FileProjection{
		Data:   data,
		Mode:   d.fileMode(mode),
		FsUser: volumeutil.ResolvesFsUser(d.user, user),
	}
}

// selection is which keys of a ConfigMap or Secret become files.
type selection struct {
	items    []v1.KeyToPath // all keys, by their own names, if empty
	optional bool           // keys that don't exist are left out
	// missing words the error for a key that doesn't exist.
	missing string
}

func (s selection) apply(keys []string, get func(key string) ([]byte, bool), d defaults) (files, error) {
	if len(s.items) == 0 {
		out := make(files, len(keys))
		for _, k := range keys {
			data, _ := get(k)
			out[k] = d.file(data, nil, nil)
		}
		return out, nil
	}
	out := make(files, len(s.items))
	for _, item := range s.items {
		data, ok := get(item.Key)
		if !ok && s.optional {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("%s: %s", s.missing, item.Key)
		}
		out[item.Path] = d.file(data, item.Mode, item.User)
	}
	return out, nil
}

func configMapFiles(cm *v1.ConfigMap, s selection, d defaults) (files, error) {
	keys := make([]string, 0, len(cm.Data)+len(cm.BinaryData))
	for k := range cm.Data {
		keys = append(keys, k)
	}
	for k := range cm.BinaryData {
		keys = append(keys, k)
	}
	s.missing = "configmap references non-existent config key"
	return s.apply(keys, func(key string) ([]byte, bool) {
		if text, ok := cm.Data[key]; ok {
			return []byte(text), true
		}
		data, ok := cm.BinaryData[key]
		return data, ok
	}, d)
}

func secretFiles(secret *v1.Secret, s selection, d defaults) (files, error) {
	keys := make([]string, 0, len(secret.Data))
	for k := range secret.Data {
		keys = append(keys, k)
	}
	s.missing = "references non-existent secret key"
	return s.apply(keys, func(key string) ([]byte, bool) {
		data, ok := secret.Data[key]
		return data, ok
	}, d)
}

func downwardFiles(items []v1.DownwardAPIVolumeFile, pod *v1.Pod, info Info, d defaults) (files, error) {
	out := make(files, len(items))
	var errs []error
	for _, item := range items {
		value, err := downwardValue(item, pod, info)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[filepath.Clean(item.Path)] = d.file([]byte(value), item.Mode, item.User)
	}
	return out, errors.Join(errs...)
}

func downwardValue(item v1.DownwardAPIVolumeFile, pod *v1.Pod, info Info) (string, error) {
	switch {
	case item.FieldRef != nil:
		return fieldpath.ExtractFieldPathAsString(pod, item.FieldRef.FieldPath)
	case item.ResourceFieldRef != nil:
		ref := item.ResourceFieldRef
		return resource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, pod, ref.ContainerName, info.Allocatable)
	default:
		return "", fmt.Errorf("downward API file %q has neither fieldRef nor resourceFieldRef", item.Path)
	}
}
