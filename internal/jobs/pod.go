package jobs

import (
	"container/list"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/ptr"
)

// stage is where a pod stands in its life, as its Job sees it.
type stage uint8

const (
	// stageActive pods are pending or running and nobody has asked for their deletion.
	stageActive stage = iota
	// stageTerminating pods are being deleted and haven't ended yet.
	stageTerminating
	// stageSucceeded and stageFailed pods have ended.
	stageSucceeded
	stageFailed
	// stageGone pods don't exist any more, though the informer may still tell of their past.
	stageGone
)

// ended says whether the pod's containers have all ended for good.
func (s stage) ended() bool { return s == stageSucceeded || s == stageFailed || s == stageGone }

// outcome is what a pod's end means to the Job's counters.
type outcome uint8

const (
	notEnded outcome = iota
	succeeded
	failed
	// spent pods have ended and don't count: their failure is ignored by the Job's podFailurePolicy, or they have an index that the Job doesn't.
	spent
)

// podRef names a pod precisely enough to act on it.
type podRef struct {
	UID  types.UID
	Name string
	// FinalizerAt is the position of the tracking finalizer in metadata.finalizers, -1 if it isn't there.
	FinalizerAt int
	// ResourceVersion is the newest version known.
	ResourceVersion string
}

// pod is what the engine remembers of a live pod. Ended pods that were counted are forgotten.
type pod struct {
	podRef
	stage     stage
	phase     corev1.PodPhase
	scheduled bool
	ready     bool
	restarts  int32
	created   time.Time
	readyAt   time.Time
	// endedAt is an estimate while the pod is terminating.
	endedAt time.Time
	labels  map[string]string
	// index is the pod's completion index, noIndex if it has none; before is how often that index had failed before this pod.
	index  int32
	before indexFailures
	// end is what the podFailurePolicy asks about a failed pod; verdict is what it says, and failsIndex whether the index is given up for it.
	end        podEnd
	verdict    verdict
	failsIndex bool
	// pull is what keeps an active pod from its image.
	pull failingPull
	// surplus says that the pod is active and the Job has no use for it: another has its index, or its index isn't needed.
	surplus bool
	// seen is set once the informer has delivered this version or a newer one: nothing older can follow.
	seen bool
	// letGo is set once the engine, having counted the pod, has asked the API to take the finalizer off: that it goes is no news of another's.
	letGo bool
	// waiting is the pod's place among the ended pods that are to be counted next.
	waiting *list.Element
	outcome outcome
}

// tracked says whether the pod carries the tracking finalizer: it hasn't been counted for good.
func (p *pod) tracked() bool { return p.FinalizerAt >= 0 }

// read takes over what the object says. Deletion can't be undone, so that an object read before it doesn't hide it.
func (p *pod) read(obj *corev1.Pod) {
	deleting := obj.DeletionTimestamp != nil || p.stage == stageTerminating
	p.UID, p.Name, p.ResourceVersion = obj.UID, obj.Name, obj.ResourceVersion
	p.FinalizerAt = slices.Index(obj.Finalizers, batchv1.JobTrackingFinalizer)
	p.labels = obj.Labels
	p.phase = obj.Status.Phase
	p.stage = stageOf(obj.Status.Phase, deleting)
	p.scheduled = obj.Spec.NodeName != ""
	p.ready, p.readyAt = readiness(obj)
	p.restarts = restarts(obj)
	p.created = obj.CreationTimestamp.Time
	p.endedAt = time.Time{}
	if p.stage != stageActive {
		p.endedAt = endTime(obj)
	}
	p.readIndex(obj)
	p.end = podEnd{}
	if p.stage == stageFailed {
		p.end = readEnd(obj)
	}
	p.pull = failingPull{}
	if p.stage == stageActive {
		p.pull = readPull(obj)
	}
}

func (p *pod) readIndex(obj *corev1.Pod) {
	p.index = noIndex
	if owner, _ := jobOwner(obj); owner != nil {
		p.index = completionIndex(owner.Name, obj)
	}
	p.before = readIndexFailures(obj)
}

func stageOf(phase corev1.PodPhase, deleting bool) stage {
	switch {
	case phase == corev1.PodSucceeded:
		return stageSucceeded
	case phase == corev1.PodFailed:
		return stageFailed
	case deleting:
		return stageTerminating
	default:
		return stageActive
	}
}

func readiness(obj *corev1.Pod) (ready bool, since time.Time) {
	for i := range obj.Status.Conditions {
		if c := &obj.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	return false, time.Time{}
}

// restarts sums the restarts of all containers of a pod that hasn't ended.
func restarts(obj *corev1.Pod) int32 {
	if obj.Status.Phase != corev1.PodRunning && obj.Status.Phase != corev1.PodPending {
		return 0
	}
	var n int32
	for i := range obj.Status.InitContainerStatuses {
		n += obj.Status.InitContainerStatuses[i].RestartCount
	}
	for i := range obj.Status.ContainerStatuses {
		n += obj.Status.ContainerStatuses[i].RestartCount
	}
	return n
}

// endTime tells when the pod ended: when its last container did, else when it ceased to be ready, else when its deletion was asked for, else
// (nothing ever ran) when it was created.
func endTime(obj *corev1.Pod) time.Time {
	if t, all := lastContainerEnd(obj); all {
		return t
	}
	if ready, since := readiness(obj); !ready && !since.IsZero() {
		return since
	}
	if obj.DeletionTimestamp != nil {
		grace := time.Duration(ptr.Deref(obj.DeletionGracePeriodSeconds, 0)) * time.Second
		return obj.DeletionTimestamp.Add(-grace)
	}
	return obj.CreationTimestamp.Time
}

// lastContainerEnd returns the newest end of the containers and sidecars, and whether all of them have ended.
func lastContainerEnd(obj *corev1.Pod) (last time.Time, all bool) {
	take := func(status *corev1.ContainerStatus) bool {
		t := status.State.Terminated
		if t == nil || t.FinishedAt.IsZero() {
			return false
		}
		if t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
		return true
	}
	for i := range obj.Status.ContainerStatuses {
		if !take(&obj.Status.ContainerStatuses[i]) {
			return time.Time{}, false
		}
	}
	for i := range obj.Status.InitContainerStatuses {
		if status := &obj.Status.InitContainerStatuses[i]; isSidecar(obj, status.Name) && !take(status) {
			return time.Time{}, false
		}
	}
	return last, !last.IsZero()
}

func isSidecar(obj *corev1.Pod, container string) bool {
	return slices.ContainsFunc(obj.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == container && ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
	})
}

func isTracked(obj *corev1.Pod) bool {
	return slices.Contains(obj.Finalizers, batchv1.JobTrackingFinalizer)
}

// settled says whether a pod has ended and was released: nothing about it matters any more.
func settled(obj *corev1.Pod) bool {
	return stageOf(obj.Status.Phase, false).ended() && !isTracked(obj)
}

// jobOwner returns the owner reference of the batch/v1 Job that controls the pod, or nil; controlled says whether anything controls it.
func jobOwner(obj *corev1.Pod) (owner *metav1.OwnerReference, controlled bool) {
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil {
		return nil, false
	}
	if ref.Kind != "Job" || ref.APIVersion != batchv1.SchemeGroupVersion.String() {
		return nil, true
	}
	return ref, true
}

// compareVersions orders two versions of objects: negative if a is older than b. A version that isn't a number says nothing about age:
// the order of arrival then counts, and a is taken for newer.
func compareVersions(a, b string) int {
	c, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		return 1
	}
	return c
}
