package apiserver

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/batch"
	api "k8s.io/kubernetes/pkg/apis/core"
)

func TestSchedulerNotice(t *testing.T) {
	by := func(scheduler, node string) api.PodSpec { return api.PodSpec{SchedulerName: scheduler, NodeName: node} }
	job := func(spec api.PodSpec) batch.JobSpec {
		return batch.JobSpec{Template: api.PodTemplateSpec{Spec: spec}}
	}
	for name, c := range map[string]struct {
		obj  runtime.Object
		want string // how the warning begins, "" means that there is none
	}{
		"pod":                {&api.Pod{Spec: by("volcano", "")}, `spec.schedulerName: errand schedules for default-scheduler only: pods for "volcano"`},
		"pod with a node":    {&api.Pod{Spec: by("volcano", "n")}, ""},
		"errand's scheduler": {&api.Pod{Spec: by("default-scheduler", "")}, ""},
		"Job":                {&batch.Job{Spec: job(by("volcano", ""))}, "spec.template.spec.schedulerName: "},
		"CronJob":            {&batch.CronJob{Spec: batch.CronJobSpec{JobTemplate: batch.JobTemplateSpec{Spec: job(by("volcano", ""))}}}, "spec.jobTemplate.spec.template.spec.schedulerName: "},
		"ordinary Job":       {&batch.Job{Spec: job(by("default-scheduler", ""))}, ""},
		"no pods":            {&api.Secret{}, ""},
	} {
		if got := otherScheduler(c.obj); (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: told %q, want %q", name, got, c.want)
		}
	}
}
