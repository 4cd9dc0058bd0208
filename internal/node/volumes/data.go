package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// setupData makes or updates a volume that mirrors API objects.
func (m *Manager) setupData(ctx context.Context, st *podState, r request) (Volume, error) {
	plugin, content, err := m.collect(ctx, st, r)
	if err != nil {
		return Volume{}, err
	}
	dir := m.volumeDir(r.pod.UID, plugin, r.vol.Name)
	if err := prepareDataDir(st, r, dir); err != nil {
		return Volume{}, err
	}
	writer, err := volumeutil.NewAtomicWriter(dir, fmt.Sprintf("pod %s/%s volume %s", r.pod.Namespace, r.pod.Name, r.vol.Name))
	if err != nil {
		return Volume{}, err
	}
	own := func(string) error { return setGroup(dir, fsGroup(r.pod), true) }
	if err := writer.Write(content, own); err != nil {
		return Volume{}, err
	}
	return Volume{HostPath: dir, ReadOnly: true, Managed: true}, nil
}

// collect returns the kubelet's name for the volume's plugin and what the
// volume is to hold.
func (m *Manager) collect(ctx context.Context, st *podState, r request) (plugin string, content files, err error) {
	switch v := r.vol; {
	case v.ConfigMap != nil:
		src := v.ConfigMap
		content, err = m.configMapContent(ctx, st, r, src.Name, selection{items: src.Items, optional: isTrue(src.Optional)}, defaults{src.DefaultMode, src.DefaultUser})
		return pluginConfigMap, content, err
	case v.Secret != nil:
		src := v.Secret
		content, err = m.secretContent(ctx, st, r, src.SecretName, selection{items: src.Items, optional: isTrue(src.Optional)}, defaults{src.DefaultMode, src.DefaultUser})
		return pluginSecret, content, err
	case v.DownwardAPI != nil:
		src := v.DownwardAPI
		content, err = downwardFiles(src.Items, r.pod, r.info, defaults{src.DefaultMode, src.DefaultUser})
		return pluginDownwardAPI, content, err
	case v.Projected != nil:
		content, err = m.projectedContent(ctx, st, r)
		return pluginProjected, content, err
	default:
		return "", nil, unsupportedVolume(v)
	}
}

func (m *Manager) configMapContent(ctx context.Context, st *podState, r request, name string, s selection, d defaults) (files, error) {
	cm, err := m.configMap(ctx, st, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) && s.optional {
		cm, err = &v1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, err
	}
	return configMapFiles(cm, s, d)
}

func (m *Manager) secretContent(ctx context.Context, st *podState, r request, name string, s selection, d defaults) (files, error) {
	secret, err := m.secret(ctx, st, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) && s.optional {
		secret, err = &v1.Secret{}, nil
	}
	if err != nil {
		return nil, err
	}
	return secretFiles(secret, s, d)
}

// projectedContent merges the volume's sources; where two write the same path
// the later one wins.
func (m *Manager) projectedContent(ctx context.Context, st *podState, r request) (files, error) {
	if kind := unsupportedProjection(r.vol.Projected); kind != "" {
		return nil, &UnsupportedError{Volume: r.vol.Name, Kind: kind}
	}
	src := r.vol.Projected
	d := defaults{src.DefaultMode, src.DefaultUser}
	out := files{}
	var errs []error
	for i := range src.Sources {
		content, err := m.sourceContent(ctx, st, r, &src.Sources[i], d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		maps.Copy(out, content)
	}
	return out, errors.Join(errs...)
}

func (m *Manager) sourceContent(ctx context.Context, st *podState, r request, src *v1.VolumeProjection, d defaults) (files, error) {
	switch {
	case src.ConfigMap != nil:
		return m.configMapContent(ctx, st, r, src.ConfigMap.Name, selection{items: src.ConfigMap.Items, optional: isTrue(src.ConfigMap.Optional)}, d)
	case src.Secret != nil:
		return m.secretContent(ctx, st, r, src.Secret.Name, selection{items: src.Secret.Items, optional: isTrue(src.Secret.Optional)}, d)
	case src.DownwardAPI != nil:
		return downwardFiles(src.DownwardAPI.Items, r.pod, r.info, d)
	case src.ServiceAccountToken != nil:
		value, err := m.serviceAccountToken(ctx, st, r, src.ServiceAccountToken)
		if err != nil {
			return nil, err
		}
		file := tokenFile(r.pod, []byte(value), src.ServiceAccountToken.User, d)
		return files{src.ServiceAccountToken.Path: file}, nil
	default:
		return nil, fmt.Errorf("volume %q has a projection without a source", r.vol.Name)
	}
}

// tokenFile makes a token readable to those who need it and nobody else: the one
// user that all containers run as, or fsGroup (setGroup turns 0600 into 0640).
func tokenFile(pod *v1.Pod, data []byte, user *int64, d defaults) volumeutil.FileProjection {
	owner := volumeutil.FsUserFrom(pod)
	if own := volumeutil.ResolvesFsUser(d.user, user); own != nil {
		owner = own
	}
	mode := d.fileMode(nil)
	if owner != nil || fsGroup(pod) != nil {
		mode = 0o600
	}
	return volumeutil.FileProjection{Data: data, Mode: mode, FsUser: owner}
}

// prepareDataDir makes the directory that an AtomicWriter fills, with mount
// points for volumes mounted below this one, and removes what a write that a
// crash interrupted left: AtomicWriter would fail on it for ever.
func prepareDataDir(st *podState, r request, dir string) error {
	if st.swept[r.vol.Name] {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	if err := makeOpenDir(dir, 0o777, nil); err != nil {
		return err
	}
	if err := sweepInterrupted(dir); err != nil {
		return err
	}
	if err := volumeutil.MakeNestedMountpoints(r.vol.Name, dir, *r.pod); err != nil {
		return err
	}
	st.swept[r.vol.Name] = true
	return nil
}

// sweepInterrupted removes AtomicWriter's hidden entries that its ..data link
// doesn't lead to.
func sweepInterrupted(dir string) error {
	current, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "..") || name == "..data" || name == current {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }
