package jobs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"errand.dev/errand/internal/jobannotations"
)

// modelSteps is how many random steps TestModel takes; the environment variable ERRAND_MODEL_STEPS overrides it.
const (
	modelSteps       = 20_000
	modelStepsPerRun = 60
)

// TestModel runs random Jobs through random interleavings of everything that can happen to them, and checks the engine's promises at each write
// and at the end.
func TestModel(t *testing.T) {
	steps := modelSteps
	if s := os.Getenv("ERRAND_MODEL_STEPS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("ERRAND_MODEL_STEPS: %v", err)
		}
		steps = n
	}
	setFlag(t, "rapid.checks", strconv.Itoa(max(steps/modelStepsPerRun, 1)))
	setFlag(t, "rapid.steps", strconv.Itoa(modelStepsPerRun))
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt)
		rt.Repeat(map[string]func(*rapid.T){
			"create Job":    m.createJob,
			"deliver pods":  m.deliverPods,
			"deliver jobs":  m.deliverJobs,
			"sync":          m.sync,
			"sync again":    m.sync,
			"deliver":       m.deliverAll,
			"run pod again": m.runPod,
			"end pod again": m.endPod,
			"run pod":       m.runPod,
			"end pod":       m.endPod,
			"flip pod":      m.flipPod,
			"restart pod":   m.restartPod,
			"delete pod":    m.deletePod,
			"disown pod":    m.disownPod,
			"disrupt pod":   m.disruptPod,
			"starve pod":    m.starvePod,
			"renumber pod":  m.renumberPod,
			"resize Job":    m.resizeJob,
			"edit Job":      m.editJob,
			"touch Job":     m.touchJob,
			"delete Job":    m.deleteJob,
			"fault":         m.fault,
			"early events":  m.earlyEvents,
			"crash":         m.crash,
			"tick":          m.tick,
			"collect":       m.collect,
		})
		m.conclude()
	})
}

func setFlag(t *testing.T, name, value string) {
	t.Helper()
	old := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(name, old) })
}

// model is a world with the truth about it.
type model struct {
	*world
	rt   *rapid.T
	jobs int
	next fault
	// early are how many events of pods and of Jobs the informers deliver before the next answer.
	early struct{ pods, jobs int }
	// decidedAt is how much of the log the informers had delivered when the sync began: it may carry out what was decided by that, whatever
	// comes in meanwhile.
	decidedAt struct{ pods, jobs int }
	// named are the pods that a status has ever named as uncounted, by list.
	named map[types.UID]string
	// flipped pods have changed from one end to the other: for a while the engine may have believed in the former.
	flipped map[types.UID]bool
	// handedOver are failed pods whose index has had another pod since, which knows of their failure.
	handedOver map[types.UID]bool
	// lastGone is the length of the log after the last removal of an object: a restart isn't shown a past in which it existed.
	lastGone int
	// freed are the Jobs, by name, of which a pod has gone.
	freed map[string]bool
	trace []string
}

func newModel(t *testing.T, rt *rapid.T) *model {
	m := &model{world: newWorld(t), rt: rt, named: map[types.UID]string{}, flipped: map[types.UID]bool{}, handedOver: map[types.UID]bool{},
		freed: map[string]bool{}}
	m.api.wrote = m.check
	m.api.rejected = func(err error) { m.fatal("the API refuses a status: %v", err) }
	m.api.hook = func(verb, resource, name string) fault {
		f := m.next
		m.next = fault{}
		m.trace = append(m.trace, fmt.Sprintf("  %s %s %s %v", verb, resource, name, f))
		return f
	}
	m.api.answering = func(string, string) {
		early := m.early
		m.early = struct{ pods, jobs int }{}
		for range early.pods {
			m.world.deliverPods()
		}
		for range early.jobs {
			m.world.deliverJobs()
		}
	}
	return m
}

func (m *model) fatal(format string, args ...any) {
	m.rt.Fatalf("%s\ntrace:\n%s", fmt.Sprintf(format, args...), strings.Join(m.trace[max(0, len(m.trace)-80):], "\n"))
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

// --- what happens ---

func (m *model) createJob(rt *rapid.T) {
	if m.jobs == 3 {
		rt.Skip()
	}
	m.jobs++
	b := makeJob(fmt.Sprintf("job-%d", m.jobs)).
		completions(rapid.Int32Range(0, 6).Draw(rt, "completions")).
		parallelism(rapid.Int32Range(0, 4).Draw(rt, "parallelism")).
		limit(rapid.Int32Range(0, 3).Draw(rt, "limit"))
	indexed := rapid.Bool().Draw(rt, "indexed")
	if indexed {
		m.index(rt, b)
	} else if rapid.IntRange(0, 3).Draw(rt, "queue") == 0 {
		b.workQueue()
	}
	if rapid.IntRange(0, 3).Draw(rt, "suspended") == 0 {
		b.suspended()
	}
	switch {
	case rapid.IntRange(0, 2).Draw(rt, "failure policy") == 0:
		b.failureRules(m.failureRules(rt, b.job.Spec.BackoffLimitPerIndex != nil)...)
	case b.job.Spec.BackoffLimitPerIndex == nil && rapid.IntRange(0, 3).Draw(rt, "on failure") == 0:
		b.onFailure()
	}
	if rapid.IntRange(0, 2).Draw(rt, "replace") == 0 {
		b.replaceFailedOnly()
	}
	if rapid.IntRange(0, 3).Draw(rt, "deadline") == 0 {
		b.deadline(rapid.Int64Range(1, 60).Draw(rt, "seconds"))
	}
	if rapid.IntRange(0, 4).Draw(rt, "ttl") == 0 {
		b.ttl(rapid.Int32Range(0, 60).Draw(rt, "ttl seconds"))
	}
	m.annotate(rt, b)
	job := m.create(b.obj())
	m.note("create %s completions=%v parallelism=%d", job.Name, ptr.Deref(job.Spec.Completions, -1), *job.Spec.Parallelism)
}

// index makes the Job Indexed, with some of the policies that go with it.
// annotate asks for what only errand gives.
func (m *model) annotate(rt *rapid.T, b *jobBuilder) {
	for _, a := range []struct {
		name   string
		values []string
	}{
		{jobannotations.PodFailureBackoff, []string{"0s", "1s", "1h"}},
		{jobannotations.ImagePullDeadline, []string{"0s", "20s", "soon"}},
		{jobannotations.TTLAfterSuccess, []string{"0", "30", jobannotations.Never}},
		{jobannotations.TTLAfterFailure, []string{"5", jobannotations.Never}},
	} {
		if rapid.IntRange(0, 7).Draw(rt, "annotated") == 0 {
			b.annotated(a.name, rapid.SampledFrom(a.values).Draw(rt, a.name))
		}
	}
}

func (m *model) index(rt *rapid.T, b *jobBuilder) {
	b.indexed(*b.job.Spec.Completions)
	if rapid.IntRange(0, 1).Draw(rt, "per index") == 0 {
		b.limitPerIndex(rapid.Int32Range(0, 2).Draw(rt, "limit per index"))
		if rapid.IntRange(0, 2).Draw(rt, "max failed") == 0 {
			b.maxFailedIndexes(rapid.Int32Range(0, *b.job.Spec.Completions).Draw(rt, "max failed indexes"))
		}
	}
	if *b.job.Spec.Completions > 0 && rapid.IntRange(0, 2).Draw(rt, "success policy") == 0 {
		rule := batchv1.SuccessPolicyRule{SucceededCount: ptr.To(rapid.Int32Range(1, *b.job.Spec.Completions).Draw(rt, "count"))}
		if rapid.Bool().Draw(rt, "indexes") {
			rule = batchv1.SuccessPolicyRule{SucceededIndexes: ptr.To(strconv.Itoa(int(rapid.Int32Range(0, *b.job.Spec.Completions-1).Draw(rt, "index"))))}
		}
		b.successRules(rule)
	}
}

func (m *model) failureRules(rt *rapid.T, perIndex bool) []batchv1.PodFailurePolicyRule {
	rules := []batchv1.PodFailurePolicyRule{
		onCondition(batchv1.PodFailurePolicyActionIgnore, corev1.DisruptionTarget),
		onExit(batchv1.PodFailurePolicyActionIgnore, 2),
		onExit(batchv1.PodFailurePolicyActionCount, 3),
	}
	if rapid.Bool().Draw(rt, "fail Job") {
		rules = append(rules, onExit(batchv1.PodFailurePolicyActionFailJob, 4))
	}
	if perIndex {
		rules = append(rules, onExit(batchv1.PodFailurePolicyActionFailIndex, 5))
	}
	return rules
}

func (m *model) deliverPods(rt *rapid.T) {
	for range rapid.IntRange(1, 5).Draw(rt, "n") {
		if !m.world.deliverPods() {
			return
		}
	}
}

func (m *model) deliverJobs(rt *rapid.T) {
	for range rapid.IntRange(1, 5).Draw(rt, "n") {
		if !m.world.deliverJobs() {
			return
		}
	}
}

func (m *model) deliverAll(*rapid.T) { m.deliver() }

func (m *model) sync(rt *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(rt, "n") {
		m.syncOnce()
	}
}

func (m *model) syncOnce() (any bool) {
	m.decidedAt.pods, m.decidedAt.jobs = m.podsAt, m.jobsAt
	if crashes(func() { m.fire(); any = m.world.sync() }) {
		m.note("crashed")
		m.boot(0, 0)
		return true
	}
	return any
}

func (m *model) pick(rt *rapid.T, which func(*corev1.Pod) bool) *corev1.Pod {
	pods := slices.DeleteFunc(m.api.podsOf(nil), func(p *corev1.Pod) bool { return !which(p) })
	if len(pods) == 0 {
		rt.Skip()
	}
	return pods[rapid.IntRange(0, len(pods)-1).Draw(rt, "pod")]
}

func alive(p *corev1.Pod) bool { return !stageOf(p.Status.Phase, false).ended() }

func (m *model) runPod(rt *rapid.T) {
	m.running(m.pick(rt, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil }))
}

// starvePod has a pod wait for an image that doesn't come; it may run or end all the same, later.
func (m *model) starvePod(rt *rapid.T) {
	pod := m.pick(rt, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodPending })
	m.note("%s gets no image", pod.Name)
	m.imageless(pod, "ImagePullBackOff", "no such image")
}

func (m *model) endPod(rt *rapid.T) {
	pod := m.pick(rt, alive)
	phase := rapid.SampledFrom([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}).Draw(rt, "phase")
	if phase == corev1.PodSucceeded {
		m.note("%s succeeds", pod.Name)
		m.end(pod, phase)
		return
	}
	code := rapid.Int32Range(1, 5).Draw(rt, "exit code")
	m.note("%s fails with %d", pod.Name, code)
	m.world.fail(pod, code)
}

// disruptPod ends a pod for the cluster's sake.
func (m *model) disruptPod(rt *rapid.T) {
	pod := m.pick(rt, alive)
	m.note("%s is disrupted", pod.Name)
	m.world.fail(pod, 137, corev1.DisruptionTarget)
}

// renumberPod changes the annotation that says which index a pod has: a user's mistake.
func (m *model) renumberPod(rt *rapid.T) {
	pod := m.pick(rt, func(p *corev1.Pod) bool { return p.Annotations[batchv1.JobCompletionIndexAnnotation] != "" })
	index := strconv.Itoa(rapid.IntRange(0, 7).Draw(rt, "index"))
	m.note("%s is renumbered %s", pod.Name, index)
	m.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) { p.Annotations[batchv1.JobCompletionIndexAnnotation] = index })
}

// flipPod changes the phase of an ended pod, as kubelets have been seen to.
func (m *model) flipPod(rt *rapid.T) {
	pod := m.pick(rt, func(p *corev1.Pod) bool { return !alive(p) })
	m.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		if p.Status.Phase == corev1.PodFailed {
			p.Status.Phase = corev1.PodSucceeded
		} else {
			p.Status.Phase = corev1.PodFailed
		}
	})
	m.flipped[pod.UID] = true
	m.note("%s flips", pod.Name)
}

func (m *model) restartPod(rt *rapid.T) {
	pod := m.pick(rt, func(p *corev1.Pod) bool {
		return alive(p) && p.Spec.RestartPolicy == corev1.RestartPolicyOnFailure && p.Status.Phase == corev1.PodRunning
	})
	m.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		n := int32(1)
		if len(p.Status.ContainerStatuses) > 0 {
			n = p.Status.ContainerStatuses[0].RestartCount + 1
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}}
	})
}

func (m *model) deletePod(rt *rapid.T) {
	pod := m.pick(rt, func(*corev1.Pod) bool { return true })
	m.note("user deletes %s", pod.Name)
	m.api.mu.Lock()
	defer m.api.mu.Unlock()
	_ = m.api.deletePod(pod.Namespace, pod.Name, metav1.DeleteOptions{})
}

// disownPod takes a pod's labels away, so that its Job has to let it go.
func (m *model) disownPod(rt *rapid.T) {
	if rapid.IntRange(0, 4).Draw(rt, "rarely") > 0 {
		rt.Skip()
	}
	pod := m.pick(rt, func(p *corev1.Pod) bool { return alive(p) })
	m.note("%s loses its labels", pod.Name)
	m.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) { p.Labels = nil })
}

func (m *model) pickJob(rt *rapid.T) *batchv1.Job {
	m.api.mu.Lock()
	var jobs []*batchv1.Job
	for i := range m.jobs {
		if job := m.api.jobs[key("default", fmt.Sprintf("job-%d", i+1))]; job != nil {
			jobs = append(jobs, job)
		}
	}
	m.api.mu.Unlock()
	if len(jobs) == 0 {
		rt.Skip()
	}
	return jobs[rapid.IntRange(0, len(jobs)-1).Draw(rt, "job")]
}

func (m *model) editJob(rt *rapid.T) {
	job := m.pickJob(rt)
	if rapid.Bool().Draw(rt, "suspend") {
		m.note("%s suspend=%v", job.Name, !*job.Spec.Suspend)
		m.api.editJob(job.Namespace, job.Name, func(j *batchv1.Job) { *j.Spec.Suspend = !*j.Spec.Suspend })
		return
	}
	n := rapid.Int32Range(0, 4).Draw(rt, "parallelism")
	m.note("%s parallelism=%d", job.Name, n)
	m.api.editJob(job.Namespace, job.Name, func(j *batchv1.Job) { j.Spec.Parallelism = &n })
}

// resizeJob changes the number of an Indexed Job's indexes (KEP-3715).
func (m *model) resizeJob(rt *rapid.T) {
	job := m.pickJob(rt)
	if !isIndexed(job) || *job.Spec.Completions != *job.Spec.Parallelism || job.Spec.SuccessPolicy != nil {
		rt.Skip()
	}
	n := rapid.Int32Range(0, 6).Draw(rt, "indexes")
	if job.Spec.MaxFailedIndexes != nil {
		n = max(n, *job.Spec.MaxFailedIndexes)
	}
	m.note("%s completions=parallelism=%d", job.Name, n)
	m.api.editJob(job.Namespace, job.Name, func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, &n })
}

// touchJob changes nothing of interest, so that a write on an older version conflicts.
func (m *model) touchJob(rt *rapid.T) {
	job := m.pickJob(rt)
	m.api.editJob(job.Namespace, job.Name, func(j *batchv1.Job) { metav1.SetMetaDataAnnotation(&j.ObjectMeta, "touched", "yes") })
}

func (m *model) deleteJob(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "rarely") > 0 {
		rt.Skip()
	}
	job := m.pickJob(rt)
	policy := rapid.SampledFrom([]metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground}).Draw(rt, "policy")
	m.note("user deletes %s, %s", job.Name, policy)
	m.api.mu.Lock()
	defer m.api.mu.Unlock()
	_ = m.api.deleteJob(job.Namespace, job.Name, metav1.DeleteOptions{PropagationPolicy: &policy})
}

// fault makes the next request fail.
func (m *model) fault(rt *rapid.T) {
	errs := []error{
		apierrors.NewTimeoutError("slow", 0), apierrors.NewInternalError(errors.New("broken")), apierrors.NewTooManyRequests("busy", 1),
		apierrors.NewForbidden(podResource, "", errors.New("exceeded quota")), errors.New("connection reset"), context.DeadlineExceeded,
	}
	m.next = fault{
		err:     errs[rapid.IntRange(0, len(errs)-1).Draw(rt, "error")],
		crash:   rapid.Bool().Draw(rt, "crash"),
		applied: rapid.Bool().Draw(rt, "applied"),
	}
	if !m.next.crash && m.next.applied && !isUncertain(m.next.err) {
		m.next.applied = false // a server that says no hasn't done it
	}
}

// earlyEvents lets the informers be faster than the next answer.
func (m *model) earlyEvents(rt *rapid.T) {
	m.early.pods, m.early.jobs = rapid.IntRange(0, 8).Draw(rt, "pods"), rapid.IntRange(0, 4).Draw(rt, "jobs")
}

// crash starts the engine anew, with informers that list the past.
func (m *model) crash(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "rarely") > 0 {
		rt.Skip()
	}
	most := min(len(m.api.log)-m.lastGone, 12)
	jobs, pods := rapid.IntRange(0, min(most, m.mostBehind())).Draw(rt, "jobs behind"), rapid.IntRange(0, most).Draw(rt, "pods behind")
	m.note("restart, behind by %d, %d", jobs, pods)
	m.next = fault{}
	m.boot(jobs, pods)
}

// mostBehind is how old the first list of Jobs may be. One that an earlier engine has worked on is in it: an event that shows it as it was created would
// be taken for a new Job's.
func (m *model) mostBehind() int {
	m.api.mu.Lock()
	defer m.api.mu.Unlock()
	for i := len(m.api.log) - 1; i >= 0; i-- {
		created, ok := m.api.log[i].new.(*batchv1.Job)
		if !ok || m.api.log[i].old != nil {
			continue
		}
		if job := m.api.jobs[key(created.Namespace, created.Name)]; job != nil && (job.Status.StartTime != nil || len(job.Status.Conditions) > 0) {
			return len(m.api.log) - i - 1
		}
	}
	return len(m.api.log)
}

func (m *model) tick(rt *rapid.T) {
	step := rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 10 * time.Minute, -20 * time.Second}).Draw(rt, "step")
	m.clock.SetTime(m.clock.Now().Add(step))
	m.note("clock %+v", step)
}

// collect does what the garbage collector and the nodes do: dependents of deleted Jobs are deleted, and deleted pods end.
func (m *model) collect(*rapid.T) {
	for _, pod := range m.api.podsOf(nil) {
		owner, _ := jobOwner(pod)
		if owner == nil {
			continue
		}
		job := m.api.job(pod.Namespace, owner.Name)
		if job == nil || job.UID != owner.UID || slices.Contains(job.Finalizers, metav1.FinalizerDeleteDependents) {
			m.api.mu.Lock()
			_ = m.api.deletePod(pod.Namespace, pod.Name, metav1.DeleteOptions{})
			m.api.mu.Unlock()
		}
	}
	for i := range m.jobs {
		job := m.api.job("default", fmt.Sprintf("job-%d", i+1))
		if job != nil && job.DeletionTimestamp != nil && len(m.api.podsOf(job)) == 0 {
			m.api.editJob("default", job.Name, func(j *batchv1.Job) { j.Finalizers = nil })
		}
	}
}
