//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// often is how often and patiently the probes of these tests ask.
const often = "periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1"

func (g *gate) remove(name string) {
	g.t.Helper()
	if err := os.Remove(g.path(name)); err != nil {
		g.t.Fatal(err)
	}
}

// applyGated applies a pod that has the gate, with a restart policy and grace
// period of its own.
func (e *errand) applyGated(g *gate, name, policy, spec string) {
	e.t.Helper()
	manifest := podManifest(name, spec+"  volumes: ["+g.volume()+"]\n")
	manifest = strings.Replace(manifest, "restartPolicy: Never", "restartPolicy: "+policy, 1)
	e.apply(strings.Replace(manifest, "terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 1", 1))
}

func TestProbes(t *testing.T) {
	e := start(t)

	t.Run("readiness by exec, http and tcp", func(t *testing.T) {
		e, g := e.with(t), newGate(t)
		e.applyGated(g, "ready", "Never", fmt.Sprintf(`
  containers:
  - {name: exec, image: "busybox:latest", command: [sleep, "3600"], volumeMounts: [%[1]s], readinessProbe: {exec: {command: [test, -e, /gate/ready]}, %[2]s}}
  - {name: http, image: "busybox:latest", command: [httpd, -f, -p, "8080", -h, /gate], volumeMounts: [%[1]s], ports: [{name: web, containerPort: 8080}], readinessProbe: {httpGet: {port: web, path: /ready}, %[2]s}}
  - {name: tcp, image: "busybox:latest", command: [sh, -c, "until [ -e /gate/ready ]; do sleep 0.1; done; nc -ll -p 9090 -e true"], volumeMounts: [%[1]s], readinessProbe: {tcpSocket: {port: 9090}, %[2]s}}
`, gateMount, often))
		e.wait("jsonpath={.status.phase}=Running", "pod/ready")
		e.wait("condition=Ready=False", "pod/ready")
		if got := e.awaitEvent("ready", "Unhealthy"); !strings.HasPrefix(got, "Readiness probe failed: ") {
			t.Errorf("the event says %q", got)
		}
		wantLines(t, columns(e.kubectl("get", "pod", "ready", "--no-headers"), 4), "ready 0/3 Running 0")
		g.touch("ready")
		e.wait("condition=Ready=True", "pod/ready")
		wantLines(t, columns(e.kubectl("get", "pod", "ready", "--no-headers"), 4), "ready 3/3 Running 0")
		g.remove("ready")
		e.wait("condition=Ready=False", "pod/ready")
		e.kubectl("delete", "pod", "ready")
	})

	t.Run("liveness restarts", func(t *testing.T) {
		e, g := e.with(t), newGate(t)
		e.applyGated(g, "alive", "OnFailure", fmt.Sprintf(`
  containers:
  - {name: work, image: "busybox:latest", command: [sh, -c, "rm -f /gate/sick; %s; sleep 3600"], volumeMounts: [%s], livenessProbe: {exec: {command: [test, "!", -e, /gate/sick]}, %s}}
`, knockGate, gateMount, often))
		g.arrived()
		g.touch("sick")
		g.arrived()
		e.wait("jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/alive")
		e.wait("condition=Ready=True", "pod/alive")
		wantLines(t, columns(e.kubectl("get", "pod", "alive", "--no-headers"), 4), "alive 1/1 Running 1")
		if got, want := e.awaitEvent("alive", "Killing"), "Container work failed liveness probe, will be restarted"; got != want {
			t.Errorf("the event says %q, want %q", got, want)
		}
		e.kubectl("delete", "pod", "alive")
	})

	t.Run("startup gates the others, and fails", func(t *testing.T) {
		e, g := e.with(t), newGate(t)
		e.applyGated(g, "slow", "Never", fmt.Sprintf(`
  containers:
  - name: work
    image: "busybox:latest"
    command: [sleep, "3600"]
    volumeMounts: [%[1]s]
    startupProbe: {exec: {command: [test, -e, /gate/up]}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1000}
    readinessProbe: {exec: {command: [sh, -c, "echo asked >> /gate/asked"]}, %[2]s}
  - name: never
    image: "busybox:latest"
    command: [sleep, "3600"]
    startupProbe: {exec: {command: ["false"]}, %[2]s}
`, gateMount, often))
		e.wait(`jsonpath={.status.containerStatuses[?(@.name=="never")].state.terminated.reason}=Error`, "pod/slow")
		if got, want := e.awaitEvent("slow", "Killing"), "Container never failed startup probe"; got != want {
			t.Errorf("the event says %q, want %q", got, want)
		}
		if s, _ := podutil.GetContainerStatus(e.podStatus("slow").ContainerStatuses, "work"); s.Ready || *s.Started {
			t.Errorf("before it has started it is %+v", s)
		}
		if _, err := os.Stat(g.path("asked")); err == nil {
			t.Error("it was asked whether it is ready before it had started")
		}
		g.touch("up")
		e.wait(`jsonpath={.status.containerStatuses[?(@.name=="work")].ready}=true`, "pod/slow")
		e.kubectl("delete", "pod", "slow")
	})

	t.Run("a Job whose sidecar has to start first", func(t *testing.T) {
		e, g := e.with(t), newGate(t)
		manifest := strings.Replace(job("helped", "wget -q -O - http://127.0.0.1:8080/page"), "      containers:\n", fmt.Sprintf(`      initContainers:
      - {name: web, image: "busybox:latest", restartPolicy: Always, command: [sh, -c, "sleep 2; httpd -f -p 8080 -h /gate"], volumeMounts: [%s], startupProbe: {httpGet: {port: 8080, path: /page}, periodSeconds: 1, failureThreshold: 60}}
      volumes: [%s]
      containers:
`, gateMount, g.volume()), 1)
		if err := os.WriteFile(g.path("page"), []byte("from the sidecar\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		e.apply(manifest)
		e.wait("condition=complete", "job/helped")
		wantLines(t, e.kubectl("logs", "job/helped"), "from the sidecar")
	})
}

// columns returns the first n columns of a line, with single spaces.
func columns(line string, n int) string {
	return strings.Join(strings.Fields(line)[:n], " ")
}

// A probe that hangs is ended with all that it started when its time is over, and
// when its container or errand dies.
func TestHangingProbe(t *testing.T) {
	e := start(t)
	// A number that no other process sleeps.
	seconds := fmt.Sprint(10_000_000 + os.Getpid())
	hang := fmt.Sprintf(`exec: {command: [sh, -c, "sleep %s; true"]}`, seconds)
	work := `  containers: [{name: work, image: "busybox:latest", command: [sleep, "3600"], `

	e.applyPod("patient", "\n"+work+"readinessProbe: {"+hang+", timeoutSeconds: 3600}}]\n")
	awaitSleepers(t, seconds, 1)
	e.kubectl("delete", "pod", "patient")
	awaitSleepers(t, seconds, 0)

	e.applyPod("hanging", "\n"+work+"livenessProbe: {"+hang+", timeoutSeconds: 1, periodSeconds: 1, failureThreshold: 3}}]\n")
	e.wait("jsonpath={.status.phase}=Failed", "pod/hanging")
	if got, want := e.awaitEvent("hanging", "Unhealthy"), fmt.Sprintf(`Liveness probe failed: command timed out: "sh -c sleep %s; true" timed out after 1s`, seconds); got != want {
		t.Errorf("the event says %q, want %q", got, want)
	}
	awaitSleepers(t, seconds, 0)

	e.applyPod("abandoned", "\n"+work+"livenessProbe: {"+hang+", timeoutSeconds: 3600}}]\n")
	awaitSleepers(t, seconds, 1)
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitSleepers(t, seconds, 0)
	e.start()
	awaitSleepers(t, seconds, 1)
}

// awaitSleepers waits until so many processes of this machine sleep so long.
func awaitSleepers(t *testing.T, seconds string, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, path := range paths {
			b, _ := os.ReadFile(path) // of one that has ended meanwhile
			if argv := strings.Split(string(b), "\x00"); filepath.Base(argv[0]) == "sleep" && slices.Contains(argv, seconds) {
				n++
			}
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes sleep %s seconds, want %d", n, seconds, want)
		}
		time.Sleep(10 * time.Millisecond) // nobody tells of other processes' ends
	}
}

// A death of errand casts no doubt on a pod: it stays ready, its container isn't
// restarted, and it is probed again.
func TestProbesOutliveErrand(t *testing.T) {
	e, g := start(t), newGate(t)
	g.touch("ready")
	g.touch("up")
	e.applyGated(g, "steady", "Always", fmt.Sprintf(`
  containers:
  - name: work
    image: "busybox:latest"
    command: [sleep, "3600"]
    volumeMounts: [%[1]s]
    startupProbe: {exec: {command: [test, -e, /gate/up]}, %[2]s}
    livenessProbe: {exec: {command: ["true"]}, %[2]s}
    readinessProbe: {exec: {command: [test, -e, /gate/ready]}, %[2]s}
`, gateMount, often))
	e.wait("condition=Ready=True", "pod/steady")
	before := e.podStatus("steady")
	g.remove("up") // it isn't asked for a second time
	for range 3 {
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.start()
	}
	e.runPod("other", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`) // by then the node has looked at all
	after := e.podStatus("steady")
	_, was := podutil.GetPodCondition(&before, v1.PodReady)
	if _, is := podutil.GetPodCondition(&after, v1.PodReady); is.Status != v1.ConditionTrue || !is.LastTransitionTime.Equal(&was.LastTransitionTime) {
		t.Errorf("its condition was %+v and is %+v", was, is)
	}
	g.remove("ready")
	e.wait("condition=Ready=False", "pod/steady")
	after = e.podStatus("steady")
	if a, b := after.ContainerStatuses[0], before.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 || !*a.Started {
		t.Errorf("it was %+v and is %+v", b, a)
	}
	g.touch("ready")
	e.wait("condition=Ready=True", "pod/steady")
}

func TestHooks(t *testing.T) {
	e := start(t)

	t.Run("postStart before what comes later, preStop before the end", func(t *testing.T) {
		e, g := e.with(t), newGate(t)
		note := func(what string) string {
			return fmt.Sprintf(`exec: {command: [sh, -c, "echo %s >> /gate/notes"]}`, what)
		}
		trap := func(name string) string {
			return fmt.Sprintf(`command: [sh, -c, "trap 'echo %s ends >> /gate/notes; exit' TERM; echo %[1]s runs >> /gate/notes; sleep 3600 & wait"]`, name)
		}
		manifest := podManifest("polite", fmt.Sprintf(`
  initContainers:
  - {name: side, image: "busybox:latest", restartPolicy: Always, %[2]s, volumeMounts: [%[1]s], lifecycle: {postStart: {%[3]s}}}
  containers:
  - {name: work, image: "busybox:latest", %[4]s, volumeMounts: [%[1]s], lifecycle: {postStart: {exec: {command: [sh, -c, "sleep 1; echo greeted >> /gate/notes"]}}, preStop: {%[5]s}}}
  - {name: last, image: "busybox:latest", %[6]s, volumeMounts: [%[1]s]}
  volumes: [%[7]s]
`, gateMount, trap("side"), note("side-greeted"), trap("work"), note("leaving"), trap("last"), g.volume()))
		e.apply(strings.Replace(manifest, "terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 60", 1))
		e.wait("condition=Ready=True", "pod/polite")
		e.kubectl("delete", "pod", "polite")
		b, err := os.ReadFile(g.path("notes"))
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Split(strings.TrimSpace(string(b)), "\n")
		for _, pair := range [][2]string{
			{"side-greeted", "work runs"}, {"greeted", "last runs"}, {"leaving", "work ends"}, {"work ends", "side ends"}, {"last ends", "side ends"},
		} {
			if i, j := slices.Index(notes, pair[0]), slices.Index(notes, pair[1]); i < 0 || j < 0 || i > j {
				t.Errorf("%q doesn't come before %q: %q", pair[0], pair[1], notes)
			}
		}
	})

	t.Run("a preStop that takes too long", func(t *testing.T) {
		e := e.with(t)
		manifest := podManifest("lingering", `
  containers: [{name: work, image: "busybox:latest", command: [sleep, "3600"], lifecycle: {preStop: {exec: {command: [sleep, "3600"]}}}}]
`)
		manifest = strings.Replace(manifest, "terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 2", 1)
		e.apply(strings.Replace(manifest, "metadata: {", "metadata: {finalizers: [example.com/look], ", 1))
		e.wait("condition=Ready=True", "pod/lingering")
		e.kubectl("delete", "pod", "lingering", "--wait=false")
		e.wait("jsonpath={.status.containerStatuses[0].state.terminated.exitCode}=137", "pod/lingering")
		if got, want := e.awaitEvent("lingering", "FailedPreStopHook"), "PreStopHook failed"; got != want {
			t.Errorf("the event says %q, want %q", got, want)
		}
		e.kubectl("patch", "pod", "lingering", "--patch", `{"metadata":{"finalizers":null}}`)
	})

	t.Run("a postStart that fails", func(t *testing.T) {
		e := e.with(t)
		e.applyPod("rude", `
  containers: [{name: work, image: "busybox:latest", command: [sleep, "3600"], lifecycle: {postStart: {exec: {command: ["false"]}}}}]
`)
		e.wait("jsonpath={.status.phase}=Failed", "pod/rude")
		for reason, want := range map[string]string{"FailedPostStartHook": "PostStartHook failed", "Killing": "FailedPostStartHook"} {
			if got := e.awaitEvent("rude", reason); got != want {
				t.Errorf("the event %s says %q, want %q", reason, got, want)
			}
		}
	})

	t.Run("sleep", func(t *testing.T) {
		e := e.with(t)
		// By itself it would end at once.
		manifest := podManifest("resting", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "trap exit TERM; sleep 3600 & wait"], lifecycle: {preStop: {sleep: {seconds: 3}}}}]
`)
		e.apply(strings.Replace(manifest, "terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 60", 1))
		e.wait("condition=Ready=True", "pod/resting")
		began := time.Now()
		e.kubectl("delete", "pod", "resting")
		if d := time.Since(began); d < 3*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
