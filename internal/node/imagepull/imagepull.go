// Package imagepull sees to it that a container's image is present: it applies
// the pull policy, finds credentials, backs off from pulls that fail, and tells
// of it by events worded as the kubelet's.
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

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
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
	// Secrets returns the pod's image pull secrets. It is called only if something
	// is pulled.
	Secrets func(ctx context.Context) ([]v1.Secret, error)
	// Event records an event on the container.
	Event func(eventType, reason, message string)
}

// Puller applies pull policies. Its methods may be called concurrently.
type Puller struct {
	images internalapi.ImageManagerService
	clock  clock.PassiveClock

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

// New returns a Puller.
func New(images internalapi.ImageManagerService, clk clock.PassiveClock) *Puller {
	return &Puller{images: images, clock: clk, backoff: map[key]backoff{}}
}

// Local returns the image if the policy lets the container run without asking a
// registry. ok is false if it has to be pulled; err is an *Error if it may not be.
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
	if info != nil {
		r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
		p.forget(key{r.Pod.UID, r.Image})
		return Image{Ref: info.GetId(), Info: info}, true, nil
	}
	if r.Policy == v1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		r.Event(v1.EventTypeWarning, "ErrImageNeverPull", message)
		return Image{}, false, &Error{Reason: ReasonNever, Message: message}
	}
	return Image{}, false, nil
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
	image, err := p.pull(ctx, r, name)
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

// pull tries the credentials in turn, the pod's own first, or none if there
// are none.
func (p *Puller) pull(ctx context.Context, r Request, name string) (Image, error) {
	credentials, err := lookup(ctx, r, name)
	if err != nil {
		return Image{}, err
	}
	spec := &runtimeapi.ImageSpec{Image: name, Annotations: r.Pod.Annotations}
	var errs []error
	for _, auth := range credentials {
		ref, err := p.images.PullImage(ctx, spec, auth, r.Sandbox)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		info, err := p.status(ctx, ref)
		if err != nil {
			return Image{}, err
		}
		if info == nil {
			return Image{}, fmt.Errorf("the runtime pulled %s and doesn't have it", ref)
		}
		return Image{Ref: ref, Info: info}, nil
	}
	if len(errs) == 1 {
		return Image{}, errs[0]
	}
	return Image{}, errors.Join(errs...)
}

func lookup(ctx context.Context, r Request, name string) ([]*runtimeapi.AuthConfig, error) {
	none := []*runtimeapi.AuthConfig{nil}
	pullSecrets, err := r.Secrets(ctx)
	if err != nil {
		return nil, err
	}
	if len(pullSecrets) == 0 {
		return none, nil
	}
	keyring, err := secrets.MakeDockerKeyring(pullSecrets, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nil, fmt.Errorf("read the pod's image pull secrets: %w", err)
	}
	repository, _, _, err := parsers.ParseImageName(name)
	if err != nil {
		return nil, err
	}
	found, ok := keyring.Lookup(repository)
	if !ok {
		return none, nil
	}
	var auths []*runtimeapi.AuthConfig
	for _, c := range found {
		auths = append(auths, &runtimeapi.AuthConfig{
			Username:      c.Username,
			Password:      c.Password,
			Auth:          c.Auth,
			ServerAddress: c.ServerAddress,
			IdentityToken: c.IdentityToken,
			RegistryToken: c.RegistryToken,
		})
	}
	return auths, nil
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
	for _, known := range []struct {
		err  error
		what string
	}{
		{crierrors.ErrRegistryUnavailable, "the registry is unavailable"},
		{crierrors.ErrSignatureValidationFailed, "the signature validation failed"},
	} {
		if rest, ok := strings.CutPrefix(err.Error(), known.err.Error()); ok {
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
