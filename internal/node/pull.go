package node

import (
	"context"
	"errors"
	"strings"
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

// image returns the image for the container's next start. ready is false while
// it is being pulled, the end of which wakes the worker. err is an
// *imagepull.Error.
func (w *worker) image(ctx context.Context, pod *v1.Pod, c *v1.Container) (img image, ready bool, err error) {
	if img, ok := w.images[c.Name]; ok {
		return img, true, nil
	}
	if p := w.takePull(c); p != nil {
		if !p.done {
			return image{}, false, nil
		}
		if p.err == nil {
			w.images[c.Name] = p.image
		}
		return p.image, p.err == nil, p.err
	}
	r := w.pullRequest(pod, c)
	img, ok, err := w.n.puller.Local(ctx, r)
	if err != nil {
		return image{}, false, err
	}
	if ok {
		w.images[c.Name] = img
		return img, true, nil
	}
	if err := w.n.puller.BackedOff(r); err != nil {
		return image{}, false, err
	}
	w.startPull(ctx, c, r)
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
	if _, _, err := w.image(ctx, pod, c); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pulls[c.Name] = &pull{name: c.Image, cancel: func() {}, done: true, err: err}
	}
}

func (w *worker) pullRequest(pod *v1.Pod, c *v1.Container) imagepull.Request {
	sandbox, err := w.n.spec.Sandbox(pod, 0)
	if err != nil {
		sandbox = nil // only a hint for the runtime; the error shows elsewhere
	}
	return imagepull.Request{
		Pod:     pod,
		Image:   c.Image,
		Policy:  c.ImagePullPolicy,
		Sandbox: sandbox,
		Secrets: func(ctx context.Context) ([]v1.Secret, error) {
			found, missing := w.n.objects.pullSecrets(ctx, pod)
			if len(missing) > 0 {
				w.n.podEvent(pod, v1.EventTypeWarning, eventPullSecret,
					"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", "))
			}
			return found, nil
		},
		Event: func(eventType, reason, message string) {
			w.n.containerEvent(pod, c, "", eventType, reason, message)
		},
	}
}

// startPull pulls the image in a goroutine of its own.
func (w *worker) startPull(ctx context.Context, c *v1.Container, r imagepull.Request) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pull{name: c.Image, cancel: cancel}
	w.mu.Lock()
	w.pulls[c.Name] = p
	w.mu.Unlock()
	w.n.spawn(func(context.Context) {
		defer cancel()
		began := w.n.cfg.Clock.Now()
		ctx, step := podtrace.Start(w.traced().Context(ctx, c.Name), "PullImage", c.Image)
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

// takePull returns the container's pull: one that is done only once, and none
// for an image that it no longer asks for.
func (w *worker) takePull(c *v1.Container) *pull {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pulls[c.Name]
	if p == nil {
		return nil
	}
	if p.name != c.Image {
		p.cancel()
		delete(w.pulls, c.Name)
		return nil
	}
	if !p.done {
		return &pull{}
	}
	delete(w.pulls, c.Name)
	if errors.Is(p.err, context.Canceled) {
		return nil
	}
	return p
}

func (w *worker) pulling(container string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pulls[container]
	return p != nil && !p.done
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
