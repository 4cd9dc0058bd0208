package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/runtimepod"
)

// The kubelet's event reasons.
const (
	eventCreated        = "Created"
	eventStarted        = "Started"
	eventFailed         = "Failed"
	eventKilling        = "Killing"
	eventBackOff        = "BackOff"
	eventFailedMount    = "FailedMount"
	eventFailedSandbox  = "FailedCreatePodSandBox"
	eventSandboxChanged = "SandboxChanged"
	eventFailedKillPod  = "FailedKillPod"
	eventFailedSync     = "FailedSync"
	eventDNS            = "DNSConfigForming"
	eventPullSecret     = "FailedToRetrieveImagePullSecret"

	eventFailedPostStart = "FailedPostStartHook"
	eventFailedPreStop   = "FailedPreStopHook"
	eventHookFallback    = "LifecycleHTTPFallback"
	eventResizeStarted   = "ResizeStarted"
	eventResizeCompleted = "ResizeCompleted"
	eventResizeError     = "ResizeError"
)

// resubscribe is how long to wait before asking again for the runtime's events
// when it has stopped delivering them.
const resubscribe = time.Second

// watchRuntime wakes workers when containers end. When the events are cut off,
// all workers look for themselves: something may have been missed. Each time that
// there are events anew a token is put into there, if it has none.
func (n *Node) watchRuntime(ctx context.Context, there chan<- struct{}) {
	logger := klog.FromContext(ctx)
	events := make(chan *runtimeapi.ContainerEventResponse, 100)
	n.spawn(func(ctx context.Context) {
		for {
			select {
			case e := <-events:
				n.runtimeEvent(e)
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		err := n.cfg.Runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) {
			for _, w := range n.all() {
				w.kick()
			}
			select {
			case there <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return
		}
		logger.Error(err, "The container runtime's events were cut off; subscribing again")
		select {
		case <-n.cfg.Clock.After(resubscribe):
		case <-ctx.Done():
			return
		}
	}
}

// runtimeEvent wakes the worker of the pod. Creations and starts are its own
// doing.
func (n *Node) runtimeEvent(e *runtimeapi.ContainerEventResponse) {
	if e.GetContainerEventType() != runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
		return
	}
	sandbox := e.GetPodSandboxStatus()
	uid := runtimepod.UIDOf(sandbox.GetLabels())
	if uid == "" {
		for _, w := range n.all() {
			w.kick()
		}
		return
	}
	if w := n.existing(uid); w != nil {
		w.kick()
	}
}

// podEvent records an event on the pod.
func (n *Node) podEvent(pod *v1.Pod, eventType, reason, format string, args ...any) {
	n.cfg.Recorder.Event(reference(pod, ""), eventType, reason, fmt.Sprintf(format, args...))
}

// containerEvent records an event on a container of the pod. id, which differs
// from run to run, is replaced in the message so that like events are counted.
func (n *Node) containerEvent(pod *v1.Pod, c *v1.Container, id, eventType, reason, message string) {
	if id != "" {
		message = strings.ReplaceAll(message, id, c.Name)
	}
	n.cfg.Recorder.Event(reference(pod, fieldPath(pod, c.Name)), eventType, reason, message)
}

// containerWarning records a warning about a container of the pod.
func (n *Node) containerWarning(pod *v1.Pod, c *v1.Container, reason, message string) {
	n.containerEvent(pod, c, "", v1.EventTypeWarning, reason, message)
}

func reference(pod *v1.Pod, path string) *v1.ObjectReference {
	return &v1.ObjectReference{
		Kind:            "Pod",
		APIVersion:      "v1",
		Namespace:       pod.Namespace,
		Name:            pod.Name,
		UID:             pod.UID,
		ResourceVersion: pod.ResourceVersion,
		FieldPath:       path,
	}
}

func fieldPath(pod *v1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return fmt.Sprintf("spec.initContainers{%s}", name)
		}
	}
	if ephemeral(pod, name) != nil {
		return fmt.Sprintf("spec.ephemeralContainers{%s}", name)
	}
	return fmt.Sprintf("spec.containers{%s}", name)
}
