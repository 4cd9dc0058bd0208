package jobs

import (
	"math"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// jobBuilder makes Jobs as the API server stores them, defaults included.
type jobBuilder struct{ job batchv1.Job }

func makeJob(name string) *jobBuilder {
	return &jobBuilder{batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: batchv1.JobSpec{
			Parallelism: ptr.To[int32](1), Completions: ptr.To[int32](1), BackoffLimit: ptr.To[int32](6),
			CompletionMode: ptr.To(batchv1.NonIndexedCompletion), Suspend: ptr.To(false),
			PodReplacementPolicy: ptr.To(batchv1.TerminatingOrFailed), ManualSelector: ptr.To(false),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "main", Image: "busybox"}},
			}},
		},
	}}
}

func (b *jobBuilder) completions(n int32) *jobBuilder { b.job.Spec.Completions = &n; return b }
func (b *jobBuilder) workQueue() *jobBuilder          { b.job.Spec.Completions = nil; return b }
func (b *jobBuilder) parallelism(n int32) *jobBuilder { b.job.Spec.Parallelism = &n; return b }
func (b *jobBuilder) limit(n int32) *jobBuilder       { b.job.Spec.BackoffLimit = &n; return b }
func (b *jobBuilder) suspended() *jobBuilder          { b.job.Spec.Suspend = ptr.To(true); return b }
func (b *jobBuilder) deadline(s int64) *jobBuilder    { b.job.Spec.ActiveDeadlineSeconds = &s; return b }
func (b *jobBuilder) ttl(s int32) *jobBuilder         { b.job.Spec.TTLSecondsAfterFinished = &s; return b }
func (b *jobBuilder) managedBy(m string) *jobBuilder  { b.job.Spec.ManagedBy = &m; return b }
func (b *jobBuilder) indexed(completions int32) *jobBuilder {
	b.job.Spec.CompletionMode, b.job.Spec.Completions = ptr.To(batchv1.IndexedCompletion), &completions
	return b
}

// limitPerIndex lets each index fail so often; the API server then sets no limit to the whole Job's failures.
func (b *jobBuilder) limitPerIndex(n int32) *jobBuilder {
	b.job.Spec.BackoffLimitPerIndex, b.job.Spec.BackoffLimit = &n, ptr.To[int32](math.MaxInt32)
	return b
}
func (b *jobBuilder) maxFailedIndexes(n int32) *jobBuilder {
	b.job.Spec.MaxFailedIndexes = &n
	return b
}
func (b *jobBuilder) successRules(rules ...batchv1.SuccessPolicyRule) *jobBuilder {
	b.job.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: rules}
	return b
}

// failureRules also sets what the API server makes the default then.
func (b *jobBuilder) failureRules(rules ...batchv1.PodFailurePolicyRule) *jobBuilder {
	b.job.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules}
	return b.replaceFailedOnly()
}

// onExit is a rule for exit codes; onCondition is one for a condition that is true.
func onExit(action batchv1.PodFailurePolicyAction, codes ...int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: codes,
	}}
}

func onCondition(action batchv1.PodFailurePolicyAction, condition corev1.PodConditionType) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
		{Type: condition, Status: corev1.ConditionTrue},
	}}
}

func (b *jobBuilder) onFailure() *jobBuilder {
	b.job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	return b
}
func (b *jobBuilder) replaceFailedOnly() *jobBuilder {
	b.job.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
	return b
}

// selecting makes the Job's selector the user's own.
func (b *jobBuilder) selecting(labels map[string]string) *jobBuilder {
	b.job.Spec.ManualSelector = ptr.To(true)
	b.job.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	b.job.Spec.Template.Labels = labels
	return b
}

// stored gives the Job what the server adds, for tests of pure functions.
func (b *jobBuilder) stored() *jobBuilder {
	b.job.UID, b.job.ResourceVersion = "job-1", "1"
	b.job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: "job-1"}}
	b.job.Spec.Template.Labels = b.job.Spec.Selector.MatchLabels
	return b
}

func (b *jobBuilder) status(edit func(*batchv1.JobStatus)) *jobBuilder { edit(&b.job.Status); return b }
func (b *jobBuilder) started(at time.Time) *jobBuilder {
	b.job.Status.StartTime = ptr.To(metav1.NewTime(at))
	return b
}
func (b *jobBuilder) obj() *batchv1.Job { return b.job.DeepCopy() }

// podBuilder makes pods of the Job job-1, tracked and pending.
type podBuilder struct{ pod corev1.Pod }

func makePod(name string) *podBuilder {
	return &podBuilder{corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", UID: types.UID("uid-" + name), ResourceVersion: "2", CreationTimestamp: metav1.NewTime(epoch),
			Labels:     map[string]string{batchv1.ControllerUidLabel: "job-1"},
			Finalizers: []string{batchv1.JobTrackingFinalizer},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "batch/v1", Kind: "Job", Name: "job", UID: "job-1", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
			}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}}
}

func (b *podBuilder) running() *podBuilder {
	b.pod.Spec.NodeName, b.pod.Status.Phase = "node", corev1.PodRunning
	return b
}
func (b *podBuilder) ready() *podBuilder {
	b.running()
	setReady(&b.pod, corev1.ConditionTrue, metav1.NewTime(epoch))
	return b
}
func (b *podBuilder) ended(phase corev1.PodPhase, at time.Time) *podBuilder {
	b.pod.Status.Phase = phase
	b.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(at)},
	}}}
	return b
}
func (b *podBuilder) succeeded() *podBuilder { return b.ended(corev1.PodSucceeded, epoch) }
func (b *podBuilder) failed() *podBuilder    { return b.ended(corev1.PodFailed, epoch) }
func (b *podBuilder) deleting() *podBuilder {
	b.pod.DeletionTimestamp = ptr.To(metav1.NewTime(epoch))
	return b
}
func (b *podBuilder) released() *podBuilder        { b.pod.Finalizers = nil; return b }
func (b *podBuilder) version(v string) *podBuilder { b.pod.ResourceVersion = v; return b }
func (b *podBuilder) obj() *corev1.Pod             { return b.pod.DeepCopy() }
