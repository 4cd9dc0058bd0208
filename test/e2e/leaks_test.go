//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"errand.dev/errand/internal/leakcheck"
)

// While errand serve goes on, pods that are deleted leave nothing of theirs: no
// process, cgroup, veth, namespace, mount, directory, log or record. However
// they ended, and wherever on their way they were.
func TestNothingStaysBehind(t *testing.T) {
	e := start(t)
	e.kubectl("create", "configmap", "conf", "--from-literal=a=b")
	check := e.stock()

	e.apply(job("succeeds", "echo done", "completions: 3", "parallelism: 3"))
	e.apply(job("fails", "exit 3", "backoffLimit: 0"))
	e.apply(strings.Replace(job("restarts", "exit 1", "backoffLimit: 1"), "Never", "OnFailure", 1))
	e.apply(job("runs", "sleep 3600", "parallelism: 2", "completions: 2"))
	e.apply(strings.Replace(job("no-image", "true"), "busybox:latest", "nosuch:latest", 1))
	e.apply(strings.Replace(job("no-command", "true", "backoffLimit: 0"), `["sh"`, `["nosuch"`, 1))
	e.apply(job("volumes", "sleep 3600") + `        volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: conf, mountPath: /conf}]
      initContainers: [{name: init, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: ["true"]}]
      shareProcessNamespace: true
      volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: conf, configMap: {name: conf}}]
`)
	e.apply(job("no-volume", "true") + `      volumes: [{name: conf, configMap: {name: nosuch}}]
`)
	e.wait("condition=complete", "job/succeeds")
	e.wait("condition=failed", "job/fails", "job/restarts", "job/no-command")
	e.wait("jsonpath={.status.ready}=2", "job/runs")
	e.wait("jsonpath={.status.ready}=1", "job/volumes")
	e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff", "pod", "-l", "batch.kubernetes.io/job-name=no-image")
	e.kubectl("delete", "jobs", "--all", "--cascade=foreground")
	check()
}

// stock takes stock of the errand's machine; the function that it returns makes
// the test fail if by then there is more. Pods have been by then, one started by
// errand and one by the OCI runtime, so that the directories of all pods' parts
// are there.
func (e *errand) stock() (check func()) {
	e.t.Helper()
	e.apply(job("first", "true"))
	e.apply(job("second", "true") + "      shareProcessNamespace: true\n")
	e.wait("condition=complete", "job/first", "job/second")
	e.kubectl("delete", "job", "first", "second", "--cascade=foreground")
	return leakcheck.Stock(e.t, e.cfg.DataDir)
}
