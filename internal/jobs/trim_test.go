package jobs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The engine reads the same from a trimmed pod as from the whole one.
func TestTrimPodKeepsWhatIsRead(t *testing.T) {
	whole := makePod("job-3-abcde").running().obj()
	whole.Annotations = map[string]string{
		"other": "annotation", batchv1.JobIndexFailureCountAnnotation: "2", batchv1.JobIndexIgnoredFailureCountAnnotation: "1",
	}
	whole.Spec.Hostname = "job-3"
	whole.Spec.InitContainers = []corev1.Container{{Name: "side", Image: "busybox", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
	end := func(code int32, after time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: code, Message: "said", FinishedAt: metav1.NewTime(epoch.Add(after)),
		}}
	}
	whole.Status = corev1.PodStatus{
		Phase:                 corev1.PodFailed,
		Conditions:            []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Message: "said"}},
		ContainerStatuses:     []corev1.ContainerStatus{{Name: "main", RestartCount: 3, State: end(42, time.Minute)}},
		InitContainerStatuses: []corev1.ContainerStatus{{Name: "side", State: end(1, time.Hour)}},
	}
	trimmed := whole.DeepCopy()
	TrimPod(trimmed)
	if trimmed.Annotations["other"] != "" || trimmed.Spec.InitContainers[0].Image != "" {
		t.Errorf("it isn't trimmed: %+v", trimmed)
	}
	want := readsTheSame(t, whole, trimmed)
	if want.index != 3 || want.before != (indexFailures{2, 1}) || len(want.end.Exits) != 2 || !want.endedAt.Equal(epoch.Add(time.Hour)) {
		t.Errorf("the pod isn't read as it should be: %+v", want)
	}
}

// So it does from one that waits for an image.
func TestTrimPodKeepsWhyThereIsNoImage(t *testing.T) {
	whole := makePod("p").obj()
	whole.Status.StartTime = &metav1.Time{Time: epoch.Add(time.Minute)}
	whole.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Image: "nowhere", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"},
	}}}
	trimmed := whole.DeepCopy()
	TrimPod(trimmed)
	if want := readsTheSame(t, whole, trimmed); want.pull.none() || !want.pull.since.Equal(epoch.Add(time.Minute)) {
		t.Errorf("the pod isn't read as it should be: %+v", want)
	}
}

// readsTheSame checks that the engine reads the same from two versions of a pod, and returns what.
func readsTheSame(t *testing.T, whole, trimmed *corev1.Pod) pod {
	t.Helper()
	var want, got pod
	want.read(whole)
	got.read(trimmed)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(pod{}, failingPull{})); diff != "" {
		t.Error(diff)
	}
	return want
}
