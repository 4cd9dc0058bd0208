package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"errand.dev/errand/internal/node/volumes"
)

// objects reads what pods refer to: from the informers' caches, and from the API
// itself what these don't have (yet).
type objects struct {
	client     kubernetes.Interface
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	services   corelisters.ServiceLister // may be nil
}

func newObjects(cfg Config) *objects {
	core := cfg.Informers.Core().V1()
	return &objects{
		client:     cfg.Client,
		configMaps: core.ConfigMaps().Lister(),
		secrets:    core.Secrets().Lister(),
		services:   cfg.Services,
	}
}

// ConfigMap implements crispec.Objects.
func (o *objects) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	cm, err := o.configMaps.ConfigMaps(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		cm, err = o.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return cm, inWords(err, "configmap", name)
}

// Secret implements crispec.Objects.
func (o *objects) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	secret, err := o.secrets.Secrets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		secret, err = o.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return secret, inWords(err, "secret", name)
}

// inWords words NotFound as the kubelet does: with the kind, not the resource.
func inWords(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(v1.Resource(kind), name)
	}
	return err
}

// Services implements crispec.Objects.
func (o *objects) Services(string) ([]*v1.Service, error) {
	if o.services == nil {
		return nil, nil
	}
	return o.services.List(labels.Everything())
}

// runtimeHandler returns the runtime handler of the pod's RuntimeClass, "" for
// the default one.
func (o *objects) runtimeHandler(ctx context.Context, pod *v1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class, err := o.client.NodeV1().RuntimeClasses().Get(ctx, *name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return class.Handler, nil
}

// pullSecrets returns the pod's image pull secrets and the names of those that
// don't exist.
func (o *objects) pullSecrets(ctx context.Context, pod *v1.Pod) (found []v1.Secret, missing []string) {
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		secret, err := o.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		found = append(found, *secret)
	}
	return found, missing
}

// maxEnvFile bounds the files that environment variables are read from, in bytes.
const maxEnvFile = 1 << 20

// runObjects are the objects that a pod's containers refer to, its volumes' files
// among them.
type runObjects struct {
	*objects
	vols map[string]volumes.Volume
}

// File implements crispec.Objects. A container may have put anything there: links
// that lead out of the volume are not followed, and nothing is waited for.
func (o runObjects) File(volume, path string) (*os.File, error) {
	vol, ok := o.vols[volume]
	if !ok || vol.HostPath == "" {
		return nil, errors.New("the pod has no such volume, or one without files on the node")
	}
	root, err := os.OpenRoot(vol.HostPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	file, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("it is no regular file: %w", fs.ErrInvalid)
	case info.Size() > maxEnvFile:
		err = fmt.Errorf("it has %d bytes, more than %d", info.Size(), maxEnvFile)
	default:
		return file, nil
	}
	return nil, errors.Join(err, file.Close())
}
