package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/node/imagepull"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/podtrace"
)

type image = imagepull.Image

// pull is an image being pulled beside the worker.
type pull struct {
	name   string // the image
	cancel context.CancelFunc
	done   bool
	image  image
	err    error
}

// want is an image that a container's next start needs.
type want struct {
	key    string // in worker.pulls and worker.images
	image  string
	policy v1.PullPolicy
	event  func(eventType, reason, message string)
}

// ownImage is the image that the container is made of.
func (w *worker) ownImage(pod *v1.Pod, c *v1.Container) want {
	return want{key: c.Name, image: c.Image, policy: c.ImagePullPolicy, event: func(eventType, reason, message string) {
		w.n.containerEvent(pod, c, "", eventType, reason, message)
	}}
}

// volumeImages are the images that the container mounts, by the name of the volume.
func (w *worker) volumeImages(pod *v1.Pod, c *v1.Container) map[string]want {
	wants := map[string]want{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || !mountsVolume(c, v.Name) {
			continue
		}
		// No container's name has a slash.
		wants[v.Name] = want{key: c.Name + "/" + v.Name, image: v.Image.Reference, policy: v.Image.PullPolicy, event: func(eventType, reason, message string) {
			w.n.podEvent(pod, eventType, reason, "%s", message)
		}}
	}
	return wants
}

func mountsVolume(c *v1.Container, name string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == name })
}

// runImages are what a run of a container is made of.
type runImages struct {
	own     image
	volumes map[string]image // by the volume's name
}

// images returns the images for the container's next start. ready is false while
// some are being pulled, side by side; the end of each wakes the worker. err is an
// *imagepull.Error.
func (w *worker) images(ctx context.Context, pod *v1.Pod, c *v1.Container) (all runImages, ready bool, err error) {
	all.own, ready, err = w.image(ctx, pod, w.ownImage(pod, c))
	all.volumes = map[string]image{}
	for name, wanted := range w.volumeImages(pod, c) {
		img, here, failed := w.image(ctx, pod, wanted)
		all.volumes[name] = img
		ready = ready && here
		if err == nil {
			err = failed
		}
	}
	return all, ready, err
}

// forgetImages has the pull policies asked again at the container's next start.
func (w *worker) forgetImages(container string) {
	maps.DeleteFunc(w.found, func(key string, _ image) bool { return isOf(key, container) })
}

func isOf(key, container string) bool {
	of, _, _ := strings.Cut(key, "/")
	return of == container
}

// image returns one image. ready is false while it is being pulled.
func (w *worker) image(ctx context.Context, pod *v1.Pod, wanted want) (img image, ready bool, err error) {
	if img, ok := w.found[wanted.key]; ok {
		return img, true, nil
	}
	if p := w.takePull(wanted); p != nil {
		if !p.done {
			return image{}, false, nil
		}
		if p.err == nil {
			w.found[wanted.key] = p.image
		}
		return p.image, p.err == nil, p.err
	}
	r := w.pullRequest(ctx, pod, wanted)
	img, ok, err := w.n.puller.Local(ctx, r)
	if err != nil {
		return image{}, false, err
	}
	if ok {
		w.found[wanted.key] = img
		return img, true, nil
	}
	if err := w.n.puller.BackedOff(r); err != nil {
		return image{}, false, err
	}
	w.startPull(ctx, wanted, r)
	return image{}, false, nil
}

// prefetch begins to get the image of the container that will be started first,
// while the sandbox is made. A failure is kept for when the container's turn comes.
func (w *worker) prefetch(ctx context.Context, pod *v1.Pod) {
	c := &pod.Spec.Containers[0]
	if len(pod.Spec.InitContainers) > 0 {
		c = &pod.Spec.InitContainers[0]
	}
	w.redefined(c)
	if !w.once("prefetch") || !w.holds[c.Name].IsZero() {
		return
	}
	if _, _, err := w.image(ctx, pod, w.ownImage(pod, c)); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pulls[c.Name] = &pull{name: c.Image, cancel: func() {}, done: true, err: err}
	}
}

func (w *worker) pullRequest(ctx context.Context, pod *v1.Pod, wanted want) imagepull.Request {
	// Looked up no more than once, lest the event about missing ones comes twice.
	pullSecrets := sync.OnceValue(func() []v1.Secret {
		found, missing := w.n.objects.pullSecrets(ctx, pod)
		if len(missing) > 0 {
			w.n.podEvent(pod, v1.EventTypeWarning, eventPullSecret,
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", "))
		}
		return found
	})
	sandbox, err := w.n.spec.Sandbox(pod, 0, nil)
	if err != nil {
		sandbox = nil // only a hint for the runtime; the error shows elsewhere
	}
	return imagepull.Request{
		Pod:     pod,
		Image:   wanted.image,
		Policy:  wanted.policy,
		Sandbox: sandbox,
		Secrets: func(context.Context) ([]v1.Secret, error) { return pullSecrets(), nil },
		Event:   wanted.event,
	}
}

// startPull pulls the image in a goroutine of its own.
func (w *worker) startPull(ctx context.Context, wanted want, r imagepull.Request) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pull{name: wanted.image, cancel: cancel}
	w.mu.Lock()
	w.pulls[wanted.key] = p
	w.mu.Unlock()
	w.n.spawn(func(context.Context) {
		defer cancel()
		began := w.n.cfg.Clock.Now()
		container, _, _ := strings.Cut(wanted.key, "/")
		ctx, step := podtrace.Start(w.traced().Context(ctx, container), "PullImage", wanted.image)
		img, err := w.n.puller.Pull(ctx, r)
		step.End(err)
		took := w.n.cfg.Clock.Since(began)
		w.mu.Lock()
		w.pulled += took
		p.done, p.image, p.err = true, img, err
		w.mu.Unlock()
		w.kick()
	})
}

// takePull returns the pull of an image: one that is done only once, and none
// for an image that isn't asked for any longer.
func (w *worker) takePull(wanted want) *pull {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pulls[wanted.key]
	if p == nil {
		return nil
	}
	if p.name != wanted.image {
		p.cancel()
		delete(w.pulls, wanted.key)
		return nil
	}
	if !p.done {
		return &pull{}
	}
	delete(w.pulls, wanted.key)
	if errors.Is(p.err, context.Canceled) {
		return nil
	}
	return p
}

// pulling tells whether the container waits for an image.
func (w *worker) pulling(container string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, p := range w.pulls {
		if isOf(key, container) && !p.done {
			return true
		}
	}
	return false
}

// pullTime is how long images have been pulled for the pod.
func (w *worker) pullTime() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pulled
}

func (w *worker) cancelPulls() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pulls {
		p.cancel()
	}
}

// imageFailed makes the container wait for its image.
func (w *worker) imageFailed(pod *v1.Pod, c *v1.Container, err error) {
	failure := podstatus.Waiting{Reason: imagepull.ReasonPull, Message: err.Error()}
	var e *imagepull.Error
	if errors.As(err, &e) {
		failure = podstatus.Waiting{Reason: e.Reason, Message: e.Message}
	}
	w.waiting[c.Name] = failure
	w.n.metrics.startErrors.WithLabelValues(containerType(pod, c.Name), failure.Reason).Inc()
	if e != nil && !e.RetryAt.IsZero() {
		w.holdUntil(c.Name, e.RetryAt)
	} else {
		w.holdAfterFailure(c.Name)
	}
	w.n.containerEvent(pod, c, "", v1.EventTypeWarning, eventFailed, "Error: "+failure.Reason)
}

// errorMessage is what the runtime had to say, without the transport's words.
func errorMessage(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
