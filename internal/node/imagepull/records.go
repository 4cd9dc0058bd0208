package imagepull

import (
	"context"
	"errors"
	"fmt"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
)

// DefaultVerification is the kubelet's default of when a pod must show that it may
// have an image that is present: when a pod has brought it.
const DefaultVerification = string(kubeletconfig.NeverVerifyPreloadedImages)

// RecordsConfig is what OpenRecords needs.
type RecordsConfig struct {
	// Dir gets a directory image_manager with the records, in the kubelet's format.
	Dir string
	// Verification and Allowlist are KubeletConfiguration's
	// imagePullCredentialsVerificationPolicy and preloadedImagesVerificationAllowlist.
	Verification string
	Allowlist    []string
	Images       internalapi.ImageManagerService
	MaxPods      int // for the size of caches
}

// ValidateVerification says what is wrong with the settings of the same names.
func ValidateVerification(policy string, allowlist []string) error {
	allowlisted := string(kubeletconfig.NeverVerifyAllowlistedImages)
	known := []any{kubeletconfig.NeverVerify, kubeletconfig.NeverVerifyPreloadedImages, kubeletconfig.NeverVerifyAllowlistedImages, kubeletconfig.AlwaysVerify}
	if _, err := pullmanager.NewImagePullCredentialVerificationPolicy(kubeletconfig.ImagePullCredentialsVerificationPolicy(policy), nil); err != nil {
		return fmt.Errorf("--image-pull-credentials-verification-policy %q: must be %s, %s, %s or %s", append([]any{policy}, known...)...)
	}
	if len(allowlist) > 0 && policy != allowlisted {
		return fmt.Errorf("--preloaded-images-verification-allowlist needs --image-pull-credentials-verification-policy=%s", allowlisted)
	}
	if err := pullmanager.ValidateAllowlistImagesPatterns(allowlist); err != nil {
		return fmt.Errorf("--preloaded-images-verification-allowlist: %w", err)
	}
	return nil
}

// OpenRecords opens the records of who pulled which image, and with what
// credentials: upstream's own (KEP-2535). A pull that an earlier process began and
// that has brought its image since counts as one with unknown credentials.
func OpenRecords(ctx context.Context, cfg RecordsConfig) (pullmanager.ImagePullManager, error) {
	policy, err := pullmanager.NewImagePullCredentialVerificationPolicy(
		kubeletconfig.ImagePullCredentialsVerificationPolicy(cfg.Verification), cfg.Allowlist)
	if err != nil {
		return nil, err
	}
	logger := klog.FromContext(ctx)
	files, err := pullmanager.NewFSPullRecordsAccessor(logger, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the records of image pulls: %w", err)
	}
	cached := pullmanager.NewCachedPullRecordsAccessor(logger, files, int32(2*cfg.MaxPods), int32(5*cfg.MaxPods), 0)
	return pullmanager.NewImagePullManager(ctx, cached, policy, intendedImages{images: cfg.Images, records: cached}, 0)
}

// intendedImages are the images that some pull was under way for, under the names
// that pods gave them: the runtime's own names have a registry and a tag that a
// pod may leave out. The records ask for nothing else.
type intendedImages struct {
	kubecontainer.ImageService
	images  internalapi.ImageManagerService
	records pullmanager.PullRecordsAccessor
}

// ListImages implements kubecontainer.ImageService.
func (s intendedImages) ListImages(ctx context.Context) ([]kubecontainer.Image, error) {
	intents, err := s.records.ListImagePullIntents()
	errs := []error{err}
	var present []kubecontainer.Image
	for _, intent := range intents {
		name, err := withTag(intent.Image)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		resp, err := s.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if id := resp.GetImage().GetId(); id != "" {
			present = append(present, kubecontainer.Image{ID: id, RepoTags: []string{intent.Image}})
		}
	}
	return present, errors.Join(errs...)
}

// shown are the credentials of a pod that the records compare: those of the node
// are everybody's.
func shown(found []credentialprovider.TrackedAuthConfig) []kubeletconfig.ImagePullSecret {
	var out []kubeletconfig.ImagePullSecret
	for _, c := range found {
		if c.Source != nil && c.Source.Secret != nil {
			out = append(out, secretOf(c))
		}
	}
	return out
}

// recorded is what is noted of a pull: the secret that served, or, for a pull with
// none of the pod's, that all pods of the node can do the same.
func recorded(used *credentialprovider.TrackedAuthConfig) *kubeletconfig.ImagePullCredentials {
	if used == nil || used.Source == nil || used.Source.Secret == nil {
		return &kubeletconfig.ImagePullCredentials{NodePodsAccessible: true}
	}
	return &kubeletconfig.ImagePullCredentials{KubernetesSecrets: []kubeletconfig.ImagePullSecret{secretOf(*used)}}
}

func secretOf(c credentialprovider.TrackedAuthConfig) kubeletconfig.ImagePullSecret {
	s := c.Source.Secret
	return kubeletconfig.ImagePullSecret{UID: s.UID, Namespace: s.Namespace, Name: s.Name, CredentialHash: c.AuthConfigHash}
}
