//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"errand.dev/errand/test/containerd"
)

// The runtime that the tests' pods are run by: errand's own, or, with
// -runtime=containerd, a containerd that all tests share; with
// -runtime=containerd-as-crio that answers as CRI-O does.
const (
	embedded         = "embedded"
	containerdByName = "containerd"
	containerdAsCRIO = "containerd-as-crio"
)

var (
	runtimeFlag = flag.String("runtime", embedded, "what runs the tests' pods: "+embedded+", "+containerdByName+" or "+containerdAsCRIO)
	// ctrd is nil with the embedded runtime.
	ctrd *containerd.Containerd
)

func asCRIO() bool { return *runtimeFlag == containerdAsCRIO }

// startRuntime starts what -runtime asks for; the returned function ends it.
func startRuntime() (end func() error, err error) {
	switch *runtimeFlag {
	case embedded:
		return func() error { return nil }, nil
	case containerdByName, containerdAsCRIO:
		if ctrd, err = containerd.Start(context.Background(), containerd.Config{Bin: bin, Images: images, AsCRIO: asCRIO()}); err != nil {
			return nil, err
		}
		return ctrd.Close, nil
	}
	return nil, fmt.Errorf("-runtime=%s: want %s, %s or %s", *runtimeFlag, embedded, containerdByName, containerdAsCRIO)
}

// ofTheEmbedded are the tests of what only the embedded runtime has, and why.
var ofTheEmbedded = map[string]string{
	"TestKillShim":                      "it kills errand-shim",
	"TestReboot":                        "it puts back the embedded runtime's records",
	"TestSlowKillServeMixed":            "it looks into errand-shim",
	"TestDrainWithoutTheDataDirectory":  "without it nothing tells in which runtime the pods are",
	"TestImageCommands":                 "it loads archives, for which the CRI has no call",
	"TestWhoHoldsTheImages":             "it uses the image store without errand serve",
	"TestImagesMakeRoom":                "it fills the embedded image store's disk",
	"TestBadImages":                     "what is told of broken images is the embedded store's",
	"TestNothingStaysBehind":            "it counts the embedded runtime's files",
	"TestPodsFindEachOther":             "names are answered on the embedded runtime's network only",
	"TestDNSPolicies":                   "likewise",
	"TestWithoutClusterDNS":             "likewise",
	"TestPortOfNamesIsTaken":            "likewise",
	"TestLogRotation":                   "errand-shim rotates at the byte; TestNodeRotatesLogs is of what the node does instead",
	"TestHangingProbe":                  "containerd ends a command that hangs, but not what it has started; TestHangingProbeOfContainerd is of the rest",
	"TestListensOnLoopbackOnly":         "it looks at errand-shim's sockets",
	"TestNoSpaceLeft":                   "the images' disk isn't the data directory's",
	"TestDoctorHere":                    "it compares what errand doctor tries with the embedded runtime's",
	"TestServeRefuses":                  "it refuses settings of the embedded runtime",
	"TestKillAnything":                  "it kills errand-shim and what that has started; TestRuntimeGoes kills containerd",
	"TestSlowKillAnything":              "likewise",
	"TestLogAtFullSpeed":                "it looks at errand-shim's memory",
	"TestHundredSessions":               "it looks at errand-shim's descriptors",
	"TestTerminal":                      "likewise",
	"TestVanishingClients":              "likewise",
	"TestCommandsEndWithErrand":         "containerd lets a command go on whose client has gone",
	"TestUnusualOutput":                 "of a line that ends with a carriage return containerd's log has it no more",
	"TestLargeEnvironments":             "it compares the embedded runtime's two ways to start a container",
	"TestImageVolumes":                  "containerd lets no program of an image volume run, and has other words for what is wrong; TestContract is of the rest",
	"TestZipBomb":                       "what an image may unpack to is the embedded store's",
	"TestTraces":                        "the steps within RunPodSandbox are the embedded runtime's",
	"TestDoctorTracePod":                "likewise",
	"TestPodsReachTheAPI":               "pods reach the API on the embedded runtime's network only",
	"TestProgramsInPodsGoOn":            "likewise",
	"TestPodsReachTheAPIOnAllAddresses": "likewise",
	"TestEachPodReachesItsOwnAPI":       "likewise",
	"TestWithoutKubernetesService":      "likewise",
	"TestLoadedImages":                  "it loads archives, for which the CRI has no call",
	"TestWithoutAnOCIRuntime":           "it takes them away from the embedded runtime",
	"TestSignaturePolicy":               "the policy is the runtime's own",
}

// runtimeArgs are what errand serve is started with for the runtime. A test that
// isn't for it is skipped, and says why.
func runtimeArgs(t *testing.T) []string {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	if ctrd == nil {
		return nil
	}
	if why := ofTheEmbedded[name]; why != "" {
		t.Skipf("not on containerd: %s", why)
	}
	return []string{"--container-runtime-endpoint", ctrd.Endpoint()}
}

// wantNoSandboxes fails the test if an errand that was drained has left pods in
// containerd.
func (e *errand) wantNoSandboxes(ctx context.Context) {
	e.t.Helper()
	if ctrd == nil {
		return
	}
	names, err := e.Names()
	if err != nil {
		e.t.Error(err)
		return
	}
	left, err := ctrd.Sandboxes(ctx, map[string]string{"errand.dev/instance": names.ID})
	if err != nil || len(left) > 0 {
		e.t.Errorf("errand drain left %d sandboxes in containerd (%v): %v", len(left), err, left)
	}
}

// withoutCutOff leaves out the pods whose container containerd killed while it was
// starting it, because errand, who had asked for that, was killed: containerd says so,
// and their Job replaces them. Some may have written that they started. With the embedded runtime there are none.
func withoutCutOff(pods []v1.Pod) []v1.Pod {
	if ctrd == nil {
		return pods
	}
	return slices.DeleteFunc(slices.Clone(pods), func(p v1.Pod) bool {
		end := p.Status.ContainerStatuses[0].State.Terminated
		return end != nil && end.Reason == "StartError" && strings.Contains(end.Message, "failed to start containerd task") && strings.HasSuffix(end.Message, "context canceled")
	})
}

// A containerd that is killed, and one that isn't there when errand starts: the
// Node tells, what runs goes on, what ends is told as containerd tells it, and
// nothing is started twice.
func TestRuntimeGoes(t *testing.T) {
	if ctrd == nil {
		t.Skip("the embedded runtime goes with errand only: see TestKillServe")
	}
	e := start(t, "-v=2")
	meanwhile, later := newGate(t), newGate(t)
	const script = `echo "start $HOSTNAME" >> /gate/ledger; echo before; ` + passGate + `; echo after; exit 7`
	e.apply(job("ends-meanwhile", script, "backoffLimit: 0") + meanwhile.mount())
	e.apply(job("ends-later", script, "backoffLimit: 0") + later.mount())
	e.apply(job("stays", "sleep 3600"))
	e.wait("jsonpath={.status.ready}=1", "job/ends-meanwhile", "job/ends-later", "job/stays")
	stays := e.pods("stays")[0]

	if err := ctrd.Kill(); err != nil {
		t.Fatal(err)
	}
	e.wait("condition=Ready=false", "node", "--all")
	ready := e.kubectl("get", "nodes", "-o", `jsonpath={.items[0].status.conditions[?(@.type=="Ready")]}`)
	for _, want := range []string{"KubeletNotReady", "container runtime is down", ctrd.Endpoint()} {
		if !strings.Contains(ready, want) {
			t.Errorf("the Node's Ready condition doesn't say %q: %s", want, ready)
		}
	}
	meanwhile.open(1)
	e.apply(job("waits", "true"))
	if err := e.Kill(); err != nil { // errand starts without the runtime, too
		t.Fatal(err)
	}
	e.start()
	for deadline := time.Now().Add(patience); !strings.Contains(e.Log(), "no pod will be run until the container runtime is ready"); {
		if time.Now().After(deadline) {
			t.Fatalf("errand doesn't say that its runtime is away:\n%s", e.Log())
		}
		time.Sleep(10 * time.Millisecond) // its output may come after its READY=1
	}
	e.wait("condition=Ready=false", "node", "--all")
	if err := ctrd.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.wait("condition=Ready=true", "node", "--all")
	later.open(1)
	e.wait("condition=failed", "job/ends-meanwhile", "job/ends-later")
	e.wait("condition=complete", "job/waits")

	e.wantAsContainerd(e.pods("ends-meanwhile"))
	ended := e.pods("ends-later")
	e.wantAsContainerd(ended)
	if s := ended[0].Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 7 {
		t.Errorf("what went on, and ended later, is %+v", ended[0].Status.ContainerStatuses[0].State)
	}
	wantLines(t, e.kubectl("logs", ended[0].Name), "before\nafter")
	if now := e.pods("stays"); len(now) != 1 || now[0].Status.ContainerStatuses[0].ContainerID != stays.Status.ContainerStatuses[0].ContainerID {
		t.Errorf("what went on is %+v", now)
	}
	for _, g := range []*gate{meanwhile, later} {
		ledger, err := os.ReadFile(g.path("ledger"))
		if err != nil || strings.Count(string(ledger), "start") != 1 {
			t.Errorf("the ledger of starts holds %q (%v), want one", ledger, err)
		}
	}
}

// wantAsContainerd compares how containers ended with what containerd says.
// containerd 2.4 itself has lost the exit code of what ends while it is down, and
// says 255, Unknown.
func (e *errand) wantAsContainerd(pods []v1.Pod) {
	e.t.Helper()
	for _, p := range pods {
		c := p.Status.ContainerStatuses[0]
		want, err := ctrd.Status(e.t.Context(), strings.TrimPrefix(c.ContainerID, "containerd://"))
		if err != nil {
			e.t.Fatal(err)
		}
		got := c.State.Terminated
		if got == nil || got.ExitCode != want.GetExitCode() || got.Reason != want.GetReason() || c.RestartCount != 0 {
			e.t.Errorf("pod %s: its container is %+v; containerd says %d %s", p.Name, c, want.GetExitCode(), want.GetReason())
		}
	}
}

// containerd waits for what a command that it has killed has left: the probe is
// over in time all the same.
func TestHangingProbeOfContainerd(t *testing.T) {
	if ctrd == nil {
		t.Skip("of containerd alone: see TestHangingProbe")
	}
	e := start(t)
	e.applyPod("hanging", `
  containers:
  - name: work
    image: busybox:latest
    command: [sleep, "3600"]
    livenessProbe: {exec: {command: [sh, -c, "sleep 3600; true"]}, timeoutSeconds: 1, periodSeconds: 1, failureThreshold: 3}
`)
	e.wait("jsonpath={.status.phase}=Failed", "pod/hanging")
	if got, want := e.awaitEvent("hanging", "Unhealthy"), `Liveness probe failed: command timed out: "sh -c sleep 3600; true" timed out after 1s`; got != want {
		t.Errorf("the event says %q, want %q", got, want)
	}
}

// containerd doesn't bound logs: the node does, and whoever follows one misses
// nothing.
func TestNodeRotatesLogs(t *testing.T) {
	if ctrd == nil {
		t.Skip("the embedded runtime rotates logs itself: see TestLogRotation")
	}
	e := start(t, "--container-log-max-size=64Ki", "--container-log-max-files=3")
	g := newGate(t)
	const round = passGate + "; seq 20000; "
	e.applyPod("talks", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "%s %s %s; echo end"], volumeMounts: [%s]}]
  volumes: [%s]
`, round, round, passGate, gateMount, g.volume()))
	e.wait("condition=Ready", "pod/talks")
	log, err := e.client.CoreV1().Pods("default").GetLogs("talks", &v1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	log0 := filepath.Join(e.cfg.DataDir, "logs/pods/default_talks_*/work/0.log")
	for _, want := range [][]int{{1, 1, 0}, {1, 2, 1}} { // files by the log's name, rotated, of those compressed
		g.open(1)
		for found := []int{}; !slices.Equal(found, want) && t.Context().Err() == nil; {
			time.Sleep(10 * time.Millisecond) // the node looks every ten seconds, and tells nobody
			found = []int{countFiles(t, log0), countFiles(t, log0+".????????-??????*"), countFiles(t, log0+".*.gz")}
		}
	}
	g.open(1)
	var want strings.Builder
	for range 2 {
		for i := range 20000 {
			fmt.Fprintln(&want, i+1)
		}
	}
	want.WriteString("end\n")
	if got, err := io.ReadAll(log); err != nil || string(got) != want.String() {
		t.Errorf("followed, the log has %d bytes, want %d: %v", len(got), want.Len(), err)
	}
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/talks")
	wantLines(t, e.kubectl("logs", "talks"), "end")
}

// count is how many files there are of a pattern.
func countFiles(t *testing.T, pattern string) int {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// What a runtime of the user's own decides is refused with what to do instead,
// and a data directory's pods stay where they are.
func TestRuntimeEndpointRefuses(t *testing.T) {
	if ctrd == nil {
		t.Skip("needs -runtime=" + containerdByName)
	}
	e := start(t)
	e.apply(job("runs", "sleep 3600"))
	e.wait("jsonpath={.status.ready}=1", "job/runs")
	if out := runErrand(t, "image", "load", filepath.Join(e.cfg.DataDir, "kubeconfig"), "--data-dir", e.cfg.DataDir); out.Code == 0 || !strings.Contains(out.Stderr, "ctr --namespace k8s.io images import") {
		t.Errorf("errand image load: %+v", out)
	}
	if out := runErrand(t, "image", "list", "--data-dir", e.cfg.DataDir); out.Code != 0 || !strings.Contains(out.Stdout, "busybox") {
		t.Errorf("errand image list: %+v", out)
	}
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := runErrand(t, "image", "list", "--data-dir", e.cfg.DataDir); out.Code != 0 || !strings.Contains(out.Stdout, "busybox") {
		t.Errorf("errand image list, without errand serve: %+v", out)
	}
	if out := runErrand(t, "serve", "--data-dir", e.cfg.DataDir, "--listen", "127.0.0.1:0"); out.Code == 0 || !strings.Contains(out.Stderr, "errand drain") || !strings.Contains(out.Stderr, ctrd.Endpoint()) {
		t.Errorf("errand serve on the embedded runtime, with pods in containerd: %+v", out)
	}
	e.start()
	e.wait("jsonpath={.status.ready}=1", "job/runs")
}
