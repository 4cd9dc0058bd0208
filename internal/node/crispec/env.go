package crispec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	podshelper "k8s.io/kubernetes/pkg/apis/core/pods"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/pkg/kubelet/util/env"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// Objects reads what environments refer to. Errors are those of the API:
// NotFound tells that the object doesn't exist.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// Services returns those that pods of the namespace learn of by their
	// environment.
	Services(namespace string) ([]*v1.Service, error)
	// File opens a regular file in one of the pod's volumes. fs.ErrNotExist tells
	// that there is none.
	File(volume, path string) (*os.File, error)
}

// MissingError tells of an object or a key that isn't there, perhaps not yet.
type MissingError struct{ Err error }

func (e *MissingError) Error() string { return e.Err.Error() }

func (e *MissingError) Unwrap() error { return e.Err }

// EnvVar is a variable with its final value.
type EnvVar struct{ Name, Value string }

// envBuilder collects a container's environment in the order of declaration; a
// variable set again keeps its place and takes the new value.
type envBuilder struct {
	node    Node
	objects Objects
	pod     *v1.Pod
	c       *v1.Container
	podIPs  []string

	vars   []EnvVar
	values map[string]string
}

// Env returns the container's environment: envFrom, then env, then the services'
// variables that neither of them sets. References $(NAME) see what comes before
// them and the services. The error is a *MissingError if an object or key is missing.
func (n Node) Env(ctx context.Context, objects Objects, pod *v1.Pod, c *v1.Container, podIPs []string) ([]EnvVar, error) {
	b := &envBuilder{node: n, objects: objects, pod: pod, c: c, podIPs: podIPs, values: map[string]string{}}
	services, err := b.serviceVars()
	if err != nil {
		return nil, err
	}
	for i := range c.EnvFrom {
		if err := b.from(ctx, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	expand := expansion.MappingFuncFor(b.values, services)
	for i := range c.Env {
		e := &c.Env[i]
		value, set := expansion.Expand(e.Value, expand), true
		if e.Value == "" && e.ValueFrom != nil {
			if value, set, err = b.valueFrom(ctx, e.ValueFrom); err != nil {
				return nil, err
			}
		}
		if set {
			b.set(e.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, taken := b.values[name]; !taken {
			b.set(name, services[name])
		}
	}
	return b.vars, nil
}

func (b *envBuilder) set(name, value string) {
	if _, again := b.values[name]; again {
		i := slices.IndexFunc(b.vars, func(v EnvVar) bool { return v.Name == name })
		b.vars[i].Value = value
	} else {
		b.vars = append(b.vars, EnvVar{name, value})
	}
	b.values[name] = value
}

// from adds all entries of a ConfigMap or Secret, in the order of their keys.
func (b *envBuilder) from(ctx context.Context, src *v1.EnvFromSource) error {
	entries := map[string]string{}
	switch {
	case src.ConfigMapRef != nil:
		cm, err := b.objects.ConfigMap(ctx, b.pod.Namespace, src.ConfigMapRef.Name)
		if err != nil {
			return unlessOptional(err, src.ConfigMapRef.Optional)
		}
		entries = cm.Data
	case src.SecretRef != nil:
		secret, err := b.objects.Secret(ctx, b.pod.Namespace, src.SecretRef.Name)
		if err != nil {
			return unlessOptional(err, src.SecretRef.Optional)
		}
		for k, v := range secret.Data {
			entries[k] = string(v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(entries)) {
		b.set(src.Prefix+k, entries[k])
	}
	return nil
}

func unlessOptional(err error, optional *bool) error {
	switch {
	case !apierrors.IsNotFound(err):
		return err
	case optional != nil && *optional:
		return nil
	}
	return &MissingError{err}
}

// valueFrom returns the value of a source; set is false if it is optional and
// missing.
func (b *envBuilder) valueFrom(ctx context.Context, src *v1.EnvVarSource) (value string, set bool, err error) {
	switch {
	case src.FieldRef != nil:
		value, err = b.field(src.FieldRef)
	case src.ResourceFieldRef != nil:
		value, err = b.resource(src.ResourceFieldRef)
	case src.ConfigMapKeyRef != nil:
		return b.configMapKey(ctx, src.ConfigMapKeyRef)
	case src.SecretKeyRef != nil:
		return b.secretKey(ctx, src.SecretKeyRef)
	case src.FileKeyRef != nil:
		return b.fileKey(src.FileKeyRef)
	}
	return value, err == nil, err
}

func (b *envBuilder) configMapKey(ctx context.Context, ref *v1.ConfigMapKeySelector) (string, bool, error) {
	cm, err := b.objects.ConfigMap(ctx, b.pod.Namespace, ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	if value, ok := cm.Data[ref.Key]; ok {
		return value, true, nil
	}
	if ref.Optional != nil && *ref.Optional {
		return "", false, nil
	}
	return "", false, &MissingError{fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, b.pod.Namespace, ref.Name)}
}

func (b *envBuilder) secretKey(ctx context.Context, ref *v1.SecretKeySelector) (string, bool, error) {
	secret, err := b.objects.Secret(ctx, b.pod.Namespace, ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	if value, ok := secret.Data[ref.Key]; ok {
		return string(value), true, nil
	}
	if ref.Optional != nil && *ref.Optional {
		return "", false, nil
	}
	return "", false, &MissingError{fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, b.pod.Namespace, ref.Name)}
}

// fileKey reads a variable from a file that an earlier container has left in a
// volume (KEP-3721).
func (b *envBuilder) fileKey(ref *v1.FileKeySelector) (string, bool, error) {
	optional := ref.Optional != nil && *ref.Optional
	file, err := b.objects.File(ref.VolumeName, ref.Path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("couldn't read env file %q in volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	defer func() { _ = file.Close() }()
	// By its descriptor: the path may lead elsewhere by now.
	value, err := env.ParseEnv(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), ref.Key)
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file %q in volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	if value == "" && !optional {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q in volume %q", ref.Key, ref.Path, ref.VolumeName)
	}
	return value, value != "", nil
}

func (b *envBuilder) field(ref *v1.ObjectFieldSelector) (string, error) {
	path, _, err := podshelper.ConvertDownwardAPIFieldLabel(ref.APIVersion, ref.FieldPath, "")
	if err != nil {
		return "", err
	}
	podIPs := b.podIPs
	if b.pod.Spec.HostNetwork {
		podIPs = b.node.HostIPs
	}
	switch path {
	case "spec.nodeName":
		return b.pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return b.pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(b.node.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(b.node.HostIPs, ","), nil
	case "status.podIP":
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(b.pod, path)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// resource resolves a limit or request. A limit that nobody set is that of the
// pod, else what the node has to give.
func (b *envBuilder) resource(ref *v1.ResourceFieldSelector) (string, error) {
	c := b.c
	if ref.ContainerName != "" {
		if c = findContainer(b.pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	allocatable := b.node.Allocatable
	if resourcehelper.IsPodLevelLimitsSet(b.pod) {
		allocatable = allocatable.DeepCopy()
		for name, q := range b.pod.Spec.Resources.Limits {
			if _, has := allocatable[name]; has && !q.IsZero() {
				allocatable[name] = q
			}
		}
	}
	c = c.DeepCopy()
	resource.MergeContainerResourceLimits(c, allocatable)
	return resource.ExtractContainerResourceValue(ref, c)
}

func findContainer(pod *v1.Pod, name string) *v1.Container {
	for _, list := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// serviceVars are the variables that tell of services: always of the API's
// own, of the namespace's if enableServiceLinks says so.
func (b *envBuilder) serviceVars() (map[string]string, error) {
	all, err := b.objects.Services(b.pod.Namespace)
	if err != nil {
		return nil, fmt.Errorf("failed to list services when setting up env vars: %w", err)
	}
	links := b.pod.Spec.EnableServiceLinks == nil || *b.pod.Spec.EnableServiceLinks
	chosen := map[string]*v1.Service{}
	for _, s := range all {
		api := s.Namespace == v1.NamespaceDefault && s.Name == "kubernetes"
		switch {
		case !v1helper.IsServiceIPSet(s):
		case api && chosen[s.Name] == nil, !api && s.Namespace == b.pod.Namespace && links:
			chosen[s.Name] = s
		}
	}
	vars := map[string]string{}
	for _, e := range envvars.FromServices(slices.Collect(maps.Values(chosen))) {
		vars[e.Name] = e.Value
	}
	return vars, nil
}
