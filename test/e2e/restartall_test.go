//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A pod of a Job is restarted in place when a container ends as its restart rule has it: all containers run once more, the init containers at first,
// with the pod's address and volumes, and the Job has lost no pod by it.
func TestRestartAllContainers(t *testing.T) {
	e := start(t)
	e.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: whole}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      initContainers:
      - {name: init, image: "busybox:latest", command: [sh, -c, "echo init >> /work/log"], volumeMounts: [&work {name: work, mountPath: /work}]}
      - {name: proxy, image: "busybox:latest", restartPolicy: Always, command: [sh, -c, "echo proxy >> /work/log; exec sleep 3600"], volumeMounts: [*work]}
      containers:
      - name: main
        image: "busybox:latest"
        command: [sh, -c, "mkfifo /work/side; read said < /work/side; echo $said >> /work/log; test -e /work/tried || { touch /work/tried; rm /work/side; exit 42; }; cat /work/log"]
        volumeMounts: [*work]
        restartPolicy: Never
        restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
      - {name: side, image: "busybox:latest", command: [sh, -c, "while ! test -p /work/side; do sleep 0.1; done; echo side > /work/side; test -e /work/tried || exec sleep 3600"], volumeMounts: [*work]}
      volumes: [{name: work, emptyDir: {}}]
`)
	e.wait("condition=Complete", "job/whole")
	pods := e.pods("whole")
	if len(pods) != 1 {
		t.Fatalf("the Job has %d pods", len(pods))
	}
	if got, want := strings.Fields(e.kubectl("logs", pods[0].Name, "-c", "main")), []string{"init", "proxy", "side", "init", "proxy", "side"}; !slices.Equal(got, want) {
		t.Errorf("the containers ran as %q, want %q", got, want)
	}
	var got []string
	for _, s := range slices.Concat(pods[0].Status.InitContainerStatuses, pods[0].Status.ContainerStatuses) {
		got = append(got, fmt.Sprintf("%s: %d, %d before", s.Name, s.RestartCount, s.LastTerminationState.Terminated.ExitCode))
	}
	// Without a handler, the first process of a container outlives SIGTERM.
	if want := []string{"init: 1, 0 before", "proxy: 1, 137 before", "main: 1, 42 before", "side: 1, 137 before"}; !slices.Equal(got, want) {
		t.Errorf("the containers' restarts are %q, want %q", got, want)
	}
}
