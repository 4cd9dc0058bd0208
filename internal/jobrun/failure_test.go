package jobrun

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTheContainerThatFailedLast(t *testing.T) {
	job := makeJob("a")
	for name, tc := range map[string]struct {
		pods []*corev1.Pod
		want int
	}{
		"none": {nil, 0},
		"the later of two, whichever is seen first": {[]*corev1.Pod{
			makePod(job, "a-1", container(terminated(7, 20))), makePod(job, "a-2", container(terminated(3, 10))),
		}, 7},
		"success counts for nothing":      {[]*corev1.Pod{makePod(job, "a-1", container(terminated(7, 10))), makePod(job, "a-2", container(terminated(0, 20)))}, 7},
		"a run before a restart":          {[]*corev1.Pod{makePod(job, "a-1", container(restarted(running(), 1, 4, 10)))}, 4},
		"killed with its pod":             {[]*corev1.Pod{makePod(job, "a-1", container(terminated(7, 10))), makePod(job, "a-2", container(terminated(137, 20)), deleted)}, 7},
		"only killed with its pod":        {[]*corev1.Pod{makePod(job, "a-2", container(terminated(143, 20)), deleted)}, 0},
		"none that a process has":         {[]*corev1.Pod{makePod(job, "a-1", container(terminated(-1073741510, 10)))}, 1},
		"one that would pass for success": {[]*corev1.Pod{makePod(job, "a-1", container(terminated(256, 10)))}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var f failures
			for _, pod := range tc.pods {
				f.see(pod)
			}
			if f.code != tc.want {
				t.Errorf("code %d, want %d", f.code, tc.want)
			}
		})
	}
}

func TestPodFailure(t *testing.T) {
	job := makeJob("a")
	oom := terminated(137, 3)
	oom.State.Terminated.Reason = "OOMKilled"
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"runs":          {makePod(job, "p", container(running()), phase(corev1.PodRunning)), ""},
		"exit code":     {makePod(job, "p", container(terminated(7, 3)), phase(corev1.PodFailed)), "pod p failed: container main ended with exit code 7"},
		"out of memory": {makePod(job, "p", container(oom), phase(corev1.PodFailed)), "pod p failed: container main ended with exit code 137 (OOMKilled)"},
		"evicted": {makePod(job, "p", phase(corev1.PodFailed), func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = "Evicted", "disk pressure" }),
			"pod p failed: Evicted: disk pressure"},
		"ended by its Job": {makePod(job, "p", container(terminated(137, 3)), phase(corev1.PodFailed), deleted), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := podFailure(tc.pod); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
