package clusterengine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// fullPod has something in every field that trimming is about.
func fullPod(ownerKind string) *corev1.Pod {
	terminated := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 3, Reason: "Error", Message: "a long story", ContainerID: "x://1", FinishedAt: metav1.Unix(1, 0),
	}}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "n", Name: "p", UID: "u", ResourceVersion: "7", CreationTimestamp: metav1.Unix(1, 0),
			DeletionTimestamp: ptr.To(metav1.Unix(2, 0)), DeletionGracePeriodSeconds: ptr.To(int64(30)),
			Labels:      map[string]string{"app": "a"},
			Annotations: map[string]string{"batch.kubernetes.io/job-completion-index": "3", "example.com/long": "text"},
			Finalizers:  []string{batchv1.JobTrackingFinalizer}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec: corev1.PodSpec{
			NodeName: "here", RestartPolicy: corev1.RestartPolicyNever, Volumes: []corev1.Volume{{Name: "v"}},
			InitContainers: []corev1.Container{{Name: "i", Image: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}},
			Containers:     []corev1.Container{{Name: "c", Image: "c", Env: []corev1.EnvVar{{Name: "E"}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodFailed, Reason: "Evicted", PodIPs: []corev1.PodIP{{IP: "::1"}},
			Conditions:            []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", Image: "i", RestartCount: 2}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "c", Image: "c", ImageID: "c@1", RestartCount: 1, State: terminated, LastTerminationState: terminated}},
		},
	}
	if ownerKind != "" {
		p.OwnerReferences = []metav1.OwnerReference{
			{Kind: "Other", Name: "o"}, {APIVersion: "v1", Kind: ownerKind, Name: "c", UID: "c", Controller: ptr.To(true)},
		}
	}
	return p
}

func TestTrimKeepsWhatTheEngineReads(t *testing.T) {
	for _, kind := range []string{"Job", ""} {
		got := trimmed(t, fullPod(kind)).(*corev1.Pod)
		want := fullPod(kind)
		want.ManagedFields = nil
		delete(want.Annotations, "example.com/long")
		want.Spec = corev1.PodSpec{
			NodeName: "here", RestartPolicy: corev1.RestartPolicyNever,
			InitContainers: []corev1.Container{{Name: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}},
		}
		want.Status.PodIPs = nil
		want.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", RestartCount: 2}}
		want.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: 1, State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", FinishedAt: metav1.Unix(1, 0)},
		}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of a pod with the controller %q stays (-want +got):\n%s", kind, diff)
		}
		if diff := cmp.Diff(got, trimmed(t, got.DeepCopy())); diff != "" {
			t.Errorf("trimming twice trims more (-once +twice):\n%s", diff)
		}
	}
}

// Of another controller's pod stays whose it is, and nothing that grows.
func TestTrimLeavesLittleOfOtherPods(t *testing.T) {
	got := trimmed(t, fullPod("ReplicaSet")).(*corev1.Pod)
	if owner := metav1.GetControllerOf(got); owner == nil || owner.Kind != "ReplicaSet" || got.UID != "u" || got.ResourceVersion != "7" || got.Status.Phase != corev1.PodFailed {
		t.Errorf("it is %+v", got)
	}
	if size := got.Size(); size > 150 {
		t.Errorf("it takes %d bytes", size)
	}
}

func TestTrimJobs(t *testing.T) {
	job := func(manager *string) *batchv1.Job {
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "j", Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
			Spec:       batchv1.JobSpec{ManagedBy: manager, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeName: "t"}}},
		}
	}
	for _, tc := range []struct {
		manager *string
		whole   bool
	}{{ptr.To(ManagedByErrand), true}, {nil, false}, {ptr.To("example.com/other"), false}} {
		want := job(tc.manager)
		want.ManagedFields = nil
		if !tc.whole {
			want.Spec.Template = corev1.PodTemplateSpec{}
		}
		if diff := cmp.Diff(want, trimmed(t, job(tc.manager))); diff != "" {
			t.Errorf("a Job of %v (-want +got):\n%s", tc.manager, diff)
		}
	}
	// What follows a lost watch isn't an object.
	gone := cache.DeletedFinalStateUnknown{Key: "n/p"}
	if got := trimmed(t, gone); got != any(gone) {
		t.Errorf("a tombstone became %v", got)
	}
}

func trimmed(t *testing.T, obj any) any {
	t.Helper()
	got, err := trim(ManagedByErrand)(obj)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
