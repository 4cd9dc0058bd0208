// Package imagepull sees to it that a container's image is present: it applies
// the pull policy, finds credentials, backs off from pulls that fail, and tells
// of it by events worded as the kubelet's. An image that one pod has pulled with
// a secret is no other pod's for being there: upstream's records, which stand on
// disk, say who may have it (KEP-2535).
//
// It doesn't pull concurrently on its own account: an image that must be fetched
// is fetched by the caller's goroutine, and merging pulls of the same image is
// the image store's business.
package imagepull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
	"k8s.io/kubernetes/pkg/util/parsers"
	"k8s.io/utils/clock"
)

// The kubelet's delays between attempts to pull an image for a pod.
const (
	backoffInitial = 10 * time.Second
	backoffMax     = 5 * time.Minute
)

// The reasons for which a container without its image waits.
const (
	ReasonPull        = "ErrImagePull"
	ReasonBackOff     = "ImagePullBackOff"
	ReasonNever       = "ErrImageNeverPull"
	ReasonInvalidName = "InvalidImageName"
	ReasonInspect     = "ImageInspectError"
)

// Error tells why the image isn't there, as the reason and message of the
// container's waiting state.
type Error struct {
	Reason  string
	Message string
	// RetryAt is when to look again; zero if time alone won't help.
	RetryAt time.Time
}

func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Image is an image that is present.
type Image struct {
	// Ref is the runtime's name of the exact image, for container configurations.
	Ref  string
	Info *runtimeapi.Image
}

// Request is an image that a container needs.
type Request struct {
	Pod     *v1.Pod
	Image   string // as the pod's spec names it
	Policy  v1.PullPolicy
	Sandbox *runtimeapi.PodSandboxConfig
	// Secrets returns the pod's image pull secrets. It is called if something is
	// pulled, or a present image isn't everybody's.
	Secrets func(ctx context.Context) ([]v1.Secret, error)
	// Event records an event on the container.
	Event func(eventType, reason, message string)
}

// Puller applies pull policies. Its methods may be called concurrently.
type Puller struct {
	images  internalapi.ImageManagerService
	records pullmanager.ImagePullManager
	clock   clock.PassiveClock

	mu      sync.Mutex
	backoff map[key]backoff
}

type key struct {
	pod   types.UID
	image string
}

type backoff struct {
	delay   time.Duration
	until   time.Time
	message string
}

// New returns a Puller. Without records, an image that is present is everybody's.
func New(images internalapi.ImageManagerService, records pullmanager.ImagePullManager, clk clock.PassiveClock) *Puller {
	if records == nil {
		records = &pullmanager.NoopImagePullManager{}
	}
	return &Puller{images: images, records: records, clock: clk, backoff: map[key]backoff{}}
}

// Local returns the image if the policy and the records let the container run
// without asking a registry. ok is false if it has to be pulled; err is an *Error
// if it may not be.
func (p *Puller) Local(ctx context.Context, r Request) (image Image, ok bool, err error) {
	name, err := withTag(r.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err)
		r.Event(v1.EventTypeWarning, "InspectFailed", message)
		return Image{}, false, &Error{Reason: ReasonInvalidName, Message: message}
	}
	if r.Policy == v1.PullAlways {
		return Image{}, false, nil
	}
	info, err := p.status(ctx, name)
	if err != nil {
		message := fmt.Sprintf("Failed to inspect image %q: %v", "", err)
		r.Event(v1.EventTypeWarning, "InspectFailed", message)
		return Image{}, false, &Error{Reason: ReasonInspect, Message: message}
	}
	verify := false
	if info != nil {
		if verify, err = p.mustVerify(ctx, r, name, info.GetId()); err != nil {
			message := fmt.Sprintf("Failed to check whether the pod may use image %q: %v", r.Image, err)
			r.Event(v1.EventTypeWarning, "Failed", message)
			return Image{}, false, &Error{Reason: ReasonPull, Message: message}
		}
	}
	if info != nil && !verify {
		r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
		p.forget(key{r.Pod.UID, r.Image})
		return Image{Ref: info.GetId(), Info: info}, true, nil
	}
	if r.Policy == v1.PullNever {
		// Nor does a pod that may not have it learn that it is present.
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		r.Event(v1.EventTypeWarning, "ErrImageNeverPull", message)
		return Image{}, false, &Error{Reason: ReasonNever, Message: message}
	}
	return Image{}, false, nil
}

// mustVerify tells whether a registry has to say that the pod may have the image,
// which is present.
func (p *Puller) mustVerify(ctx context.Context, r Request, name, id string) (bool, error) {
	return p.records.MustAttemptImagePull(ctx, r.Image, id, func() ([]kubeletconfig.ImagePullSecret, *kubeletconfig.ImagePullServiceAccount, error) {
		found, err := lookup(ctx, r, name)
		return shown(found), nil, err
	})
}

// BackedOff returns an *Error as long as the pod may not try to pull the image
// again, else nil.
func (p *Puller) BackedOff(r Request) error {
	p.mu.Lock()
	b, ok := p.backoff[key{r.Pod.UID, r.Image}]
	p.mu.Unlock()
	if !ok || !p.clock.Now().Before(b.until) {
		return nil
	}
	message := fmt.Sprintf("Back-off pulling image %q", r.Image)
	r.Event(v1.EventTypeNormal, "BackOff", message)
	return &Error{Reason: ReasonBackOff, Message: message + ": " + b.message, RetryAt: b.until}
}

// Pull fetches the image. It returns an *Error, having started a back-off, if
// that fails for any reason but the end of ctx.
func (p *Puller) Pull(ctx context.Context, r Request) (Image, error) {
	name, err := withTag(r.Image)
	if err != nil {
		return Image{}, &Error{Reason: ReasonInvalidName, Message: err.Error()}
	}
	r.Event(v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	start := p.clock.Now()
	image, err := p.recordedPull(ctx, r, name)
	if err != nil {
		if ctx.Err() != nil {
			return Image{}, ctx.Err()
		}
		r.Event(v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, err))
		return Image{}, p.failed(key{r.Pod.UID, r.Image}, classify(r.Image, err))
	}
	took := p.clock.Since(start).Truncate(time.Millisecond)
	r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", r.Image, took, took, image.Info.GetSize()))
	p.forget(key{r.Pod.UID, r.Image})
	return image, nil
}

// recordedPull pulls, and has it on disk before that somebody did: what is here
// after a crash, nobody else may take for an image that anyone can have.
func (p *Puller) recordedPull(ctx context.Context, r Request, name string) (Image, error) {
	if err := p.records.RecordPullIntent(klog.FromContext(ctx), r.Image); err != nil {
		return Image{}, err
	}
	image, used, err := p.pull(ctx, r, name)
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		p.records.RecordImagePullFailed(ctx, r.Image)
		return Image{}, err
	}
	p.records.RecordImagePulled(ctx, r.Image, image.Info.GetId(), recorded(used))
	return image, nil
}

// pull tries the credentials in turn, the pod's own first, or none if there
// are none. It returns those that served.
func (p *Puller) pull(ctx context.Context, r Request, name string) (Image, *credentialprovider.TrackedAuthConfig, error) {
	found, err := lookup(ctx, r, name)
	if err != nil {
		return Image{}, nil, err
	}
	tries := []*credentialprovider.TrackedAuthConfig{nil}
	if len(found) > 0 {
		tries = tries[:0]
		for i := range found {
			tries = append(tries, &found[i])
		}
	}
	spec := &runtimeapi.ImageSpec{Image: name, Annotations: r.Pod.Annotations}
	var errs []error
	for _, credentials := range tries {
		ref, err := p.images.PullImage(ctx, spec, authConfig(credentials), r.Sandbox)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		info, err := p.status(ctx, ref)
		if err != nil {
			return Image{}, nil, err
		}
		if info == nil {
			return Image{}, nil, fmt.Errorf("the runtime pulled %s and doesn't have it", ref)
		}
		return Image{Ref: ref, Info: info}, credentials, nil
	}
	if len(errs) == 1 {
		return Image{}, nil, errs[0]
	}
	return Image{}, nil, errors.Join(errs...)
}

// lookup finds the pod's credentials for the image's registry, the best first.
func lookup(ctx context.Context, r Request, name string) ([]credentialprovider.TrackedAuthConfig, error) {
	pullSecrets, err := r.Secrets(ctx)
	if err != nil || len(pullSecrets) == 0 {
		return nil, err
	}
	keyring, err := secrets.MakeDockerKeyring(pullSecrets, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nil, fmt.Errorf("read the pod's image pull secrets: %w", err)
	}
	repository, _, _, err := parsers.ParseImageName(name)
	if err != nil {
		return nil, err
	}
	found, _ := keyring.Lookup(repository)
	return found, nil
}

// authConfig is what the runtime is given of credentials; nil for none.
func authConfig(c *credentialprovider.TrackedAuthConfig) *runtimeapi.AuthConfig {
	if c == nil {
		return nil
	}
	return &runtimeapi.AuthConfig{
		Username:      c.Username,
		Password:      c.Password,
		Auth:          c.Auth,
		ServerAddress: c.ServerAddress,
		IdentityToken: c.IdentityToken,
		RegistryToken: c.RegistryToken,
	}
}

// status returns nil if the image is not present.
func (p *Puller) status(ctx context.Context, name string) (*runtimeapi.Image, error) {
	resp, err := p.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
	if err != nil {
		return nil, err
	}
	return resp.GetImage(), nil
}

// failed notes the failure and doubles the delay.
func (p *Puller) failed(k key, e *Error) *Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[k]
	b.delay = min(max(2*b.delay, backoffInitial), backoffMax)
	b.until = p.clock.Now().Add(b.delay)
	b.message = e.Error()
	p.backoff[k] = b
	// Looked at again before the back-off is over, so that the container is seen
	// to back off after it was seen to fail.
	e.RetryAt = p.clock.Now().Add(min(b.delay/2, backoffInitial))
	return e
}

func (p *Puller) forget(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.backoff, k)
}

// Forget drops what is remembered of a pod that is gone.
func (p *Puller) Forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.backoff {
		if k.pod == uid {
			delete(p.backoff, k)
		}
	}
}

// classify gives the errors that the CRI names their reasons.
func classify(image string, err error) *Error {
	said := err.Error()
	// As cri-client does for a runtime behind a socket.
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unknown {
		said = s.Message()
	}
	for _, known := range []struct {
		err  error
		what string
	}{
		{crierrors.ErrRegistryUnavailable, "the registry is unavailable"},
		{crierrors.ErrSignatureValidationFailed, "the signature validation failed"},
	} {
		if rest, ok := strings.CutPrefix(said, known.err.Error()); ok {
			return &Error{Reason: known.err.Error(), Message: fmt.Sprintf("image pull failed for %s because %s%s", image, known.what, rest)}
		}
	}
	return &Error{Reason: ReasonPull, Message: err.Error()}
}

// withTag adds the default tag to a name without tag and digest, leaving the
// rest as the user wrote it.
func withTag(image string) (string, error) {
	_, tag, digest, err := parsers.ParseImageName(image)
	if err != nil {
		return "", err
	}
	if digest == "" && tag != "" && !strings.HasSuffix(image, ":"+tag) {
		return image + ":" + tag, nil
	}
	return image, nil
}
