package jobs

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestCompletionIndex(t *testing.T) {
	for _, tc := range []struct {
		name, job, hostname, annotation string
		want                            int32
	}{
		{"host name", "job", "job-3", "", 3},
		{"both", "job", "job-3", "3", 3},
		{"the host name wins: nobody can edit it", "job", "job-3", "4", 3},
		{"annotation", "job", "", "4", 4},
		{"another host name", "job", "web-3", "4", 4},
		{"the host name begins with the Job's, by chance", "job", "job-server", "4", 4},
		{"a Job whose name ends in a number", "job-1", "job-1-7", "", 7},
		{"a host name of the shorter name", "job", "job-1-7", "4", 4},
		{"another way of writing a number", "job", "job-03", "+4", noIndex},
		{"negative", "job", "job--1", "-1", noIndex},
		{"too large", "job", "job-2147483648", "9999999999", noIndex},
		{"the largest", "job", "job-2147483647", "", math.MaxInt32},
		{"nothing", "job", "", "", noIndex},
		{"no number", "job", "job-", "x", noIndex},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Hostname: tc.hostname}}
		if tc.annotation != "" {
			pod.Annotations = map[string]string{batchv1.JobCompletionIndexAnnotation: tc.annotation}
		}
		if got := completionIndex(tc.job, pod); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// A pod of an index: label, annotation, host name, names, and the variable in each container that hasn't one of that name.
func TestNewIndexedPod(t *testing.T) {
	job := makeJob("job").indexed(5).stored().obj()
	own := []corev1.EnvVar{{Name: completionIndexEnv, Value: "mine"}}
	job.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	job.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}, {Name: "own", Env: own}}
	before := job.DeepCopy()
	pod := newPod(job, "job-3-abcde", creation{Slot: slotOf(3, 2)})

	told := corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['batch.kubernetes.io/job-completion-index']"},
	}}
	want := before.Spec.Template.Spec.DeepCopy()
	want.Hostname = "job-3"
	want.InitContainers[0].Env = []corev1.EnvVar{told}
	want.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}, told}
	if diff := cmp.Diff(*want, pod.Spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"batch.kubernetes.io/job-completion-index": "3"}, pod.Annotations); diff != "" {
		t.Error(diff)
	}
	labels := map[string]string{batchv1.ControllerUidLabel: "job-1", "batch.kubernetes.io/job-completion-index": "3"}
	if diff := cmp.Diff(labels, pod.Labels); diff != "" {
		t.Error(diff)
	}
	if pod.Name != "job-3-abcde" || pod.GenerateName != "job-3-" {
		t.Errorf("name %q, generateName %q", pod.Name, pod.GenerateName)
	}
	if diff := cmp.Diff(before, job); diff != "" {
		t.Errorf("the pod shares memory with the Job: %s", diff)
	}
}

// A pod of a Job without indexes has nothing of it.
func TestNewPodWithoutIndex(t *testing.T) {
	pod := newPod(makeJob("job").stored().obj(), "job-abcde", creation{})
	if pod.Annotations != nil || pod.Spec.Hostname != "" || pod.Spec.Containers[0].Env != nil {
		t.Errorf("pod %+v", pod)
	}
}

// An index isn't cut off, however long the Job's name, and the whole stays a name.
func TestIndexedPrefix(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, tc := range []struct {
		job   string
		index int32
		want  string
	}{
		{"job", 0, "job-0-"},
		{"job", 99999, "job-99999-"},
		{long[:55], 0, long[:55] + "-0-"},
		{long[:56], 0, long[:55] + "-0-"},
		{long, 12345, long[:51] + "-12345-"},
	} {
		got := indexedPrefix(tc.job, tc.index)
		if got != tc.want {
			t.Errorf("%s, %d: %s, want %s", tc.job, tc.index, got, tc.want)
		}
		name := podNames{tc.job, "uid", true}.at(slotOf(tc.index, 7))
		if errs := validation.IsDNS1123Label(name); !strings.HasPrefix(name, got) || len(errs) > 0 {
			t.Errorf("name %s: %v", name, errs)
		}
	}
}

func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index, attempt := rapid.Int32Range(0, math.MaxInt32).Draw(t, "index"), rapid.Int32Range(0, math.MaxInt32).Draw(t, "attempt")
		slot := slotOf(index, attempt)
		if slot < 0 || indexOfSlot(slot) != index || attemptOfSlot(slot) != attempt {
			t.Fatalf("%d, %d became %d, %d in slot %d", index, attempt, indexOfSlot(slot), attemptOfSlot(slot), slot)
		}
	})
}

// Each attempt at each index has a name of its own, which is the same whenever it is computed: creating it twice makes one pod.
func TestIndexedPodNames(t *testing.T) {
	job := makeJob("job").indexed(300).stored().obj()
	seen := map[string]int64{}
	for index := range int32(300) {
		for attempt := range int32(30) {
			slot := slotOf(index, attempt)
			name := namesFor(job).at(slot)
			if other, ok := seen[name]; ok {
				t.Fatalf("slots %d and %d share %s", other, slot, name)
			}
			seen[name] = slot
		}
	}
	first, _ := strings.CutPrefix(namesFor(job).at(slotOf(0, 0)), "job-0-")
	second, _ := strings.CutPrefix(namesFor(job).at(slotOf(1, 0)), "job-1-")
	if first == second {
		t.Errorf("all indexes begin with the suffix %s", first)
	}
	again := makeJob("job").indexed(300).stored().obj()
	if slot := slotOf(17, 3); namesFor(again).at(slot) != namesFor(job).at(slot) {
		t.Error("an attempt has two names")
	}
}
