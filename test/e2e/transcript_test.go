//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// The tour's Job, from suspended to gone. Where the tour's kubectl was older,
// the columns and lines are those of Kubernetes 1.37.
func TestTranscript(t *testing.T) {
	e := start(t)

	wantLines(t, e.kubectl("apply", "-f", "../../examples/job-echo.yaml"), `job.batch/job-echo created`)
	e.wait("condition=Suspended", "job/job-echo")
	wantLines(t, e.kubectl("get", "jobs"), `
		NAME       STATUS      COMPLETIONS   DURATION   AGE
		job-echo   Suspended   0/2                      <age>`)
	wantLines(t, e.kubectl("describe", "jobs", "job-echo"), describedHead+`
		Pods Statuses: 0 Active (0 Ready) / 0 Succeeded / 0 Failed
		`+describedTemplate+`
		Events:
		Type    Reason     Age    From            Message
		----    ------     ----   ----            -------
		Normal  Suspended  <age>  job-controller  Job suspended`)
	if out := e.try("", "get", "pods"); out.Stderr != "No resources found in default namespace.\n" {
		t.Errorf("a suspended Job has pods: %s%s", out.Stdout, out.Stderr)
	}

	wantLines(t, e.kubectl("patch", "job/job-echo", "--type=strategic", "--patch", `{"spec":{"suspend":false}}`), `job.batch/job-echo patched`)
	e.wait("condition=complete", "job/job-echo")
	wantLines(t, e.kubectl("get", "jobs"), `
		NAME       STATUS     COMPLETIONS   DURATION   AGE
		job-echo   Complete   2/2           <age>      <age>`)
	wantLines(t, e.kubectl("describe", "jobs", "job-echo"), strings.Replace(describedHead, "Suspend: true", "Suspend: false", 1)+`
		Start Time:    <time>
		Completed At:  <time>
		Duration:      <age>
		Pods Statuses: 0 Active (0 Ready) / 2 Succeeded / 0 Failed
		`+describedTemplate+`
		Events:
		Type    Reason            Age    From            Message
		----    ------            ----   ----            -------
		Normal  Suspended         <age>  job-controller  Job suspended
		Normal  SuccessfulCreate  <age>  job-controller  Created pod: job-echo-<name>
		Normal  SuccessfulCreate  <age>  job-controller  Created pod: job-echo-<name>
		Normal  Resumed           <age>  job-controller  Job resumed
		Normal  Completed         <age>  job-controller  Job completed`)
	wantLines(t, e.kubectl("get", "pods"), `
		NAME            READY   STATUS      RESTARTS   AGE
		job-echo-<name> 0/1     Completed   0          <age>
		job-echo-<name> 0/1     Completed   0          <age>`)
	wantLines(t, e.kubectl("logs", "-l", "job-name=job-echo"), "Hello, Job\nHello, Job")

	// The tour waits 100 s; TestSlowTTL does too.
	e.kubectl("patch", "job/job-echo", "--patch", `{"spec":{"ttlSecondsAfterFinished":1}}`)
	e.wait("delete", "job/job-echo")
	e.wait("delete", "pod", "-l", "job-name=job-echo")
	if out := e.try("", "get", "pods"); out.Stderr != "No resources found in default namespace.\n" {
		t.Errorf("pods outlived their Job: %s%s", out.Stdout, out.Stderr)
	}
}

const describedHead = `
	Name: job-echo
	Namespace: default
	Selector: batch.kubernetes.io/controller-uid=<uid>
	Labels: job-name=job-echo
	Annotations: <none>
	Parallelism: 2
	Completions: 2
	Completion Mode: NonIndexed
	Suspend: true
	Backoff Limit: 4
	TTL Seconds After Finished: 100`

const describedTemplate = `Pod Template:
	Labels: batch.kubernetes.io/controller-uid=<uid>
	batch.kubernetes.io/job-name=job-echo
	controller-uid=<uid>
	job-name=job-echo
	Containers:
	echo:
	Image: busybox:latest
	Port: <none>
	Host Port: <none>
	Command:
	echo
	Hello, Job
	Environment: <none>
	Mounts: <none>
	Volumes: <none>
	Node-Selectors: <none>
	Tolerations: <none>`
