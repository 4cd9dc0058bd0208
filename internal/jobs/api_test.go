package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	jobstrategy "k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/utils/clock"
)

var (
	podResource = schema.GroupResource{Resource: "pods"}
	jobResource = schema.GroupResource{Group: "batch", Resource: "jobs"}
)

// fakeAPI is an API server in memory, for Jobs and pods only. Each write of a Job's status goes through upstream's own strategy and validation.
type fakeAPI struct {
	clock clock.PassiveClock
	// hook may make a request fail (before or after it took effect) or crash the caller.
	hook func(verb, resource, name string) fault
	// answering is called when a request has taken effect, before it is answered; nil is nothing.
	answering func(verb, resource string)
	// wrote is told of each change of an object; old or new may be nil.
	wrote func(old, new any)
	// rejected is told of a status that upstream's validation refuses.
	rejected func(error)

	mu       sync.Mutex
	revision int
	uids     int
	jobs     map[string]*batchv1.Job
	pods     map[string]*corev1.Pod
	// stopped pods have been ended by the node: once no finalizer is left, they go.
	stopped map[types.UID]bool
	log     []change
	calls   map[string]int
	trusted bool // skip validation: for benchmarks
	// terminating namespaces take no new pods.
	terminating map[string]bool
}

// change is an entry of the watch log.
type change struct {
	revision int
	old, new any // *batchv1.Job or *corev1.Pod, or nil
}

// fault is what befalls a request.
type fault struct {
	err     error // instead of the answer
	applied bool  // although the request took effect
	crash   bool  // panic with errCrash instead of returning err
}

var errCrash = errors.New("crash")

func newFakeAPI(c clock.PassiveClock) *fakeAPI {
	return &fakeAPI{
		clock: c, jobs: map[string]*batchv1.Job{}, pods: map[string]*corev1.Pod{},
		stopped: map[types.UID]bool{}, calls: map[string]int{}, terminating: map[string]bool{}, revision: 100,
	}
}

// call runs a request under the hook.
func (a *fakeAPI) call(verb, resource, name string, do func() error) error {
	var f fault
	if a.hook != nil {
		f = a.hook(verb, resource, name)
	}
	a.mu.Lock()
	a.calls[verb+" "+resource]++
	a.mu.Unlock()
	failed := f.err != nil || f.crash
	if failed && !f.applied {
		if f.crash {
			panic(errCrash)
		}
		return f.err
	}
	a.mu.Lock()
	err := do()
	a.mu.Unlock()
	if a.answering != nil {
		a.answering(verb, resource)
	}
	if failed {
		if f.crash {
			panic(errCrash)
		}
		return f.err
	}
	return err
}

func key(namespace, name string) string { return namespace + "/" + name }

func (a *fakeAPI) stamp(meta *metav1.ObjectMeta) {
	a.revision++
	meta.ResourceVersion = strconv.Itoa(a.revision)
}

func (a *fakeAPI) newUID(kind string) types.UID {
	a.uids++
	return types.UID(fmt.Sprintf("%s-%06d", kind, a.uids))
}

func (a *fakeAPI) now() metav1.Time { return metav1.NewTime(a.clock.Now().Truncate(time.Second)) }

func (a *fakeAPI) record(old, new any) {
	a.log = append(a.log, change{a.revision, old, new})
	if a.wrote != nil {
		a.wrote(old, new)
	}
}

func (a *fakeAPI) createPod(pod *corev1.Pod) (*corev1.Pod, error) {
	if a.terminating[pod.Namespace] {
		err := apierrors.NewForbidden(podResource, pod.Name, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", pod.Namespace))
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
		return nil, err
	}
	k := key(pod.Namespace, pod.Name)
	if a.pods[k] != nil {
		return nil, apierrors.NewAlreadyExists(podResource, pod.Name)
	}
	pod = pod.DeepCopy()
	pod.UID, pod.CreationTimestamp = a.newUID("pod"), a.now()
	pod.Status.Phase = corev1.PodPending
	a.stamp(&pod.ObjectMeta)
	a.pods[k] = pod
	a.record(nil, pod)
	return pod.DeepCopy(), nil
}

// storePod puts a new version of a pod in the place of the old, or removes it if it is stopped, deleted, and nothing holds it.
func (a *fakeAPI) storePod(old, pod *corev1.Pod) *corev1.Pod {
	a.stamp(&pod.ObjectMeta)
	k := key(pod.Namespace, pod.Name)
	if pod.DeletionTimestamp != nil && len(pod.Finalizers) == 0 && a.stopped[pod.UID] {
		delete(a.pods, k)
		a.record(old, nil)
		a.log[len(a.log)-1].old = pod // a DELETED event shows the last version
		return pod
	}
	a.pods[k] = pod
	a.record(old, pod)
	return pod
}

func (a *fakeAPI) patchPod(namespace, name string, kind types.PatchType, data []byte) (*corev1.Pod, error) {
	old := a.pods[key(namespace, name)]
	if old == nil {
		return nil, apierrors.NewNotFound(podResource, name)
	}
	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	var after []byte
	switch kind {
	case types.JSONPatchType:
		patch, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if after, err = patch.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(422, "patch", podResource, name, err.Error(), 0, true)
		}
	case types.StrategicMergePatchType:
		if after, err = strategicpatch.StrategicMergePatch(before, data, corev1.Pod{}); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(after, pod); err != nil {
		return nil, err
	}
	if pod.UID != old.UID {
		return nil, apierrors.NewConflict(podResource, name, errors.New("Precondition failed: UID"))
	}
	if string(before) == string(mustMarshal(pod)) {
		return old.DeepCopy(), nil // nothing changed: no write
	}
	return a.storePod(old, pod).DeepCopy(), nil
}

func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func (a *fakeAPI) deletePod(namespace, name string, opts metav1.DeleteOptions) error {
	old := a.pods[key(namespace, name)]
	if old == nil {
		return apierrors.NewNotFound(podResource, name)
	}
	if p := opts.Preconditions; p != nil && p.UID != nil && *p.UID != old.UID {
		return apierrors.NewConflict(podResource, name, errors.New("Precondition failed: UID"))
	}
	if old.Spec.NodeName == "" || old.Status.Phase == corev1.PodSucceeded || old.Status.Phase == corev1.PodFailed {
		a.stopped[old.UID] = true // nothing to wait for
	}
	if old.DeletionTimestamp != nil && !a.stopped[old.UID] {
		return nil
	}
	pod := old.DeepCopy()
	if pod.DeletionTimestamp == nil {
		now := a.now()
		grace := int64(30)
		if a.stopped[old.UID] {
			grace = 0
		}
		at := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &at, &grace
	}
	a.storePod(old, pod)
	return nil
}

func (a *fakeAPI) listPods(namespace, selector string) (*corev1.PodList, error) {
	s, err := metav1.ParseToLabelSelector(selector)
	if err != nil {
		return nil, err
	}
	match, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(a.revision)}}
	for _, pod := range a.pods {
		if pod.Namespace == namespace && match.Matches(labelSet(pod.Labels)) {
			list.Items = append(list.Items, *pod.DeepCopy())
		}
	}
	sort.Slice(list.Items, func(i, j int) bool { return list.Items[i].Name < list.Items[j].Name })
	return list, nil
}

// createJob stores a Job as a user's.
func (a *fakeAPI) createJob(job *batchv1.Job) *batchv1.Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	job = job.DeepCopy()
	job.UID, job.CreationTimestamp, job.Generation = a.newUID("job"), a.now(), 1
	if job.Spec.Selector == nil {
		job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(job.UID)}}
		job.Spec.Template.Labels = map[string]string{
			batchv1.ControllerUidLabel: string(job.UID), legacyControllerUIDLabel: string(job.UID),
			batchv1.JobNameLabel: job.Name, "job-name": job.Name,
		}
	}
	a.stamp(&job.ObjectMeta)
	a.jobs[key(job.Namespace, job.Name)] = job
	a.record(nil, job)
	return job.DeepCopy()
}

// editJob changes a Job as a user would.
func (a *fakeAPI) editJob(namespace, name string, edit func(*batchv1.Job)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.jobs[key(namespace, name)]
	job := old.DeepCopy()
	edit(job)
	job.Generation++
	a.storeJob(old, job)
}

func (a *fakeAPI) storeJob(old, job *batchv1.Job) {
	a.stamp(&job.ObjectMeta)
	if job.DeletionTimestamp != nil && len(job.Finalizers) == 0 {
		delete(a.jobs, key(job.Namespace, job.Name))
		a.record(old, nil)
		a.log[len(a.log)-1].old = job
		return
	}
	a.jobs[key(job.Namespace, job.Name)] = job
	a.record(old, job)
}

func (a *fakeAPI) deleteJob(namespace, name string, opts metav1.DeleteOptions) error {
	old := a.jobs[key(namespace, name)]
	if old == nil {
		return apierrors.NewNotFound(jobResource, name)
	}
	if p := opts.Preconditions; p != nil && (p.UID != nil && *p.UID != old.UID || p.ResourceVersion != nil && *p.ResourceVersion != old.ResourceVersion) {
		return apierrors.NewConflict(jobResource, name, errors.New("Precondition failed"))
	}
	job := old.DeepCopy()
	now := a.now()
	job.DeletionTimestamp = &now
	if opts.PropagationPolicy != nil && *opts.PropagationPolicy == metav1.DeletePropagationForeground {
		job.Finalizers = append(job.Finalizers, metav1.FinalizerDeleteDependents)
	}
	a.storeJob(old, job)
	return nil
}

func (a *fakeAPI) updateStatus(in *batchv1.Job) (*batchv1.Job, error) {
	old := a.jobs[key(in.Namespace, in.Name)]
	if old == nil {
		return nil, apierrors.NewNotFound(jobResource, in.Name)
	}
	if in.UID != old.UID || in.ResourceVersion != old.ResourceVersion {
		return nil, apierrors.NewConflict(jobResource, in.Name, errors.New("the object has been modified"))
	}
	job := in.DeepCopy()
	job.Spec = *old.Spec.DeepCopy()
	if !a.trusted {
		if err := validateStatus(job, old); err != nil {
			if a.rejected != nil {
				a.rejected(err)
			}
			return nil, err
		}
	}
	a.stamp(&job.ObjectMeta)
	a.jobs[key(job.Namespace, job.Name)] = job
	a.record(old, job)
	return job.DeepCopy(), nil
}

// validateStatus applies upstream's rules for a status update.
func validateStatus(job, old *batchv1.Job) error {
	var newInternal, oldInternal batch.Job
	for _, c := range []struct {
		in  *batchv1.Job
		out *batch.Job
	}{{job.DeepCopy(), &newInternal}, {old.DeepCopy(), &oldInternal}} {
		if err := legacyscheme.Scheme.Convert(c.in, c.out, nil); err != nil {
			return err
		}
	}
	ctx := genericapirequest.WithNamespace(genericapirequest.NewContext(), job.Namespace)
	jobstrategy.StatusStrategy.PrepareForUpdate(ctx, &newInternal, &oldInternal)
	if errs := jobstrategy.StatusStrategy.ValidateUpdate(ctx, &newInternal, &oldInternal); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, job.Name, errs)
	}
	return nil
}

// setPod changes a pod as the node or a user would.
func (a *fakeAPI) setPod(namespace, name string, edit func(*corev1.Pod)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.pods[key(namespace, name)]
	if old == nil {
		return
	}
	pod := old.DeepCopy()
	edit(pod)
	a.storePod(old, pod)
}

// job returns the stored Job, or nil.
func (a *fakeAPI) job(namespace, name string) *batchv1.Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.jobs[key(namespace, name)]
}

// podsOf returns the stored pods that the Job controls, by name; all pods if job is nil.
func (a *fakeAPI) podsOf(job *batchv1.Job) []*corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	var pods []*corev1.Pod
	for _, pod := range a.pods {
		if owner, _ := jobOwner(pod); job == nil || owner != nil && owner.UID == job.UID {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(x, y *corev1.Pod) int {
		xrv, _ := strconv.Atoi(string(x.UID[4:]))
		yrv, _ := strconv.Atoi(string(y.UID[4:]))
		return xrv - yrv
	})
	return pods
}
