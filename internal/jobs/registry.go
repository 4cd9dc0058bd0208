package jobs

import (
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// legacyControllerUIDLabel is how generated selectors named the Job before batch.kubernetes.io/controller-uid.
const legacyControllerUIDLabel = "controller-uid"

// registry holds the states of all Jobs by UID. A Job that was deleted and created again under the same name is another Job.
type registry struct {
	mu   sync.Mutex
	jobs map[types.UID]*jobState
	// manual holds, by namespace, the Jobs whose selector the user wrote. All others select a label that has their UID for value.
	manual map[string]map[types.UID]*jobState
	// loose holds, by namespace, the pods that nothing controls: a Job that appears may adopt them.
	loose map[string]map[types.UID]*corev1.Pod
}

func newRegistry() *registry {
	return &registry{
		jobs:   map[types.UID]*jobState{},
		manual: map[string]map[types.UID]*jobState{},
		loose:  map[string]map[types.UID]*corev1.Pod{},
	}
}

// get returns the state of the Job, or nil.
func (r *registry) get(uid types.UID) *jobState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[uid]
}

// open returns the state of the Job, making one if there is none.
func (r *registry) open(uid types.UID, namespace, name string) *jobState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.jobs[uid]
	if s == nil {
		s = newJobState(uid, namespace, name)
		r.jobs[uid] = s
	}
	return s
}

// noteSelector remembers how pods for the Job are found, and returns the loose pods that it might select.
func (r *registry) noteSelector(s *jobState, job *batchv1.Job) []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	if job.Spec.ManualSelector != nil && *job.Spec.ManualSelector {
		put(r.manual, job.Namespace, job.UID, s)
	}
	pods := make([]*corev1.Pod, 0, len(r.loose[job.Namespace]))
	for _, p := range r.loose[job.Namespace] {
		pods = append(pods, p)
	}
	return pods
}

// close forgets the Job.
func (r *registry) close(s *jobState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs[s.uid] == s {
		delete(r.jobs, s.uid)
	}
	remove(r.manual, s.namespace, s.uid)
}

// loosen notes a pod that nothing controls.
func (r *registry) loosen(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	put(r.loose, pod.Namespace, pod.UID, pod)
}

// suitors returns the Jobs that might select the pod.
func (r *registry) suitors(pod *corev1.Pod) []*jobState {
	r.mu.Lock()
	defer r.mu.Unlock()
	var suitors []*jobState
	for _, label := range []string{batchv1.ControllerUidLabel, legacyControllerUIDLabel} {
		if s := r.jobs[types.UID(pod.Labels[label])]; s != nil && s.namespace == pod.Namespace {
			suitors = append(suitors, s)
			break
		}
	}
	for _, s := range r.manual[pod.Namespace] {
		suitors = append(suitors, s)
	}
	return suitors
}

// bind notes that the pod is controlled, or gone.
func (r *registry) bind(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	remove(r.loose, pod.Namespace, pod.UID)
}

// loosePod returns the newest version of a pod that nothing controls, or nil.
func (r *registry) loosePod(namespace string, uid types.UID) *corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loose[namespace][uid]
}

func put[V any](m map[string]map[types.UID]V, namespace string, uid types.UID, v V) {
	if m[namespace] == nil {
		m[namespace] = map[types.UID]V{}
	}
	m[namespace][uid] = v
}

func remove[V any](m map[string]map[types.UID]V, namespace string, uid types.UID) {
	delete(m[namespace], uid)
	if len(m[namespace]) == 0 {
		delete(m, namespace)
	}
}
