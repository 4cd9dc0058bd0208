package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/fakecri"
	"errand.dev/errand/internal/node/keptlogs"
)

// keeper makes what keeps logs, if the agent is to have that; run runs it.
func (a *agent) keeper(factory informers.SharedInformerFactory) (k *keptlogs.Keeper, run func(context.Context) (done <-chan struct{})) {
	a.w.t.Helper()
	done := make(chan struct{})
	if !a.keeps {
		close(done)
		return nil, func(context.Context) <-chan struct{} { return done }
	}
	k, err := keptlogs.New(keptlogs.Config{
		Dir: filepath.Join(a.w.dir, "kept"), MaxSize: 1 << 20, Jobs: factory.Batch().V1().Jobs(), Clock: a.w.clock,
	})
	if err != nil {
		a.w.t.Fatal(err)
	}
	return k, func(ctx context.Context) <-chan struct{} {
		go func() {
			defer close(done)
			if err := k.Run(ctx); err != nil {
				a.w.t.Errorf("keeping logs: %v", err)
			}
		}()
		return done
	}
}

func keepsLogs(a *agent) { a.keeps = true }

func (b *podBuilder) ofJob(name string) *podBuilder {
	b.pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: name, UID: "uid-job", Controller: ptr.To(true)}}
	return b
}

// talks has each run of the pod's containers say which it is, and end with the code
// unless it is to go on.
func (w *world) talks(pod *v1.Pod, code int32, exits bool) {
	w.runtime.Behave = func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		path := filepath.Join(w.dir, "logs", "ns_"+pod.Name+"_"+string(pod.UID), c.LogPath)
		if err := os.WriteFile(path, []byte("I am "+c.LogPath+"\n"), 0o640); err != nil {
			w.t.Error(err)
		}
		return fakecri.Behaviour{Exits: exits, ExitCode: code}
	}
}

// kept are the runs of the Job "j" whose logs are kept, with exit codes and logs.
func (a *agent) kept() []string {
	a.w.t.Helper()
	runs, err := a.node.KeptLogs(a.w.t.Context(), "ns", "j")
	if err != nil {
		a.w.t.Fatal(err)
	}
	var all []string
	for _, r := range runs {
		log, err := a.node.OpenKeptLog(a.w.t.Context(), "ns", r.PodUID, r.Container, r.RestartCount)
		if err != nil {
			a.w.t.Fatal(err)
		}
		text, err := io.ReadAll(log)
		if err != nil {
			a.w.t.Fatal(err)
		}
		_ = log.Close() // was only read
		code := "unknown"
		if r.Ended != nil {
			code = fmt.Sprint(r.Ended.ExitCode)
		}
		all = append(all, fmt.Sprintf("%s of %s: %s: %s", r.PodName, r.JobUID, code, text))
	}
	slices.Sort(all)
	return all
}

func (a *agent) wantKept(want ...string) {
	a.w.t.Helper()
	if got := a.kept(); !slices.Equal(got, want) {
		a.w.t.Errorf("kept are %q, want %q", got, want)
	}
}

// The logs of a Job's pod are there at once when the API has the pod no more, and
// nothing else of it. Of other pods nothing is kept.
func TestLogsAreKept(t *testing.T) {
	for name, tc := range map[string]struct {
		pod  *v1.Pod
		want []string
	}{
		"of a Job's pod": {
			makePod("p").ofJob("j").init("before").obj(),
			[]string{"p of uid-job: 0: I am before/0.log\n", "p of uid-job: 0: I am main/0.log\n"},
		},
		"of another Job's": {makePod("p").ofJob("k").obj(), nil},
		"of nobody's":      {makePod("p").obj(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.talks(tc.pod, 0, true)
			w.api.create(tc.pod)
			a := w.start(keepsLogs)
			w.waitPhase(tc.pod, v1.PodSucceeded)
			a.wantKept()
			if err := w.api.remove(tc.pod, nil); err != nil {
				t.Fatal(err)
			}
			w.waitGone(tc.pod)
			a.wantKept(tc.want...)
			a.waitForgotten(tc.pod)
			w.mustBeEmpty()
		})
	}
}

// kubernetes#74848: under OnFailure the runs but the last two go while the pod is
// still there. Their logs are kept, and the last two's with the pod.
func TestKK74848_EarlierRunsAreKept(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").ofJob("j").restart(v1.RestartPolicyOnFailure).obj()
	w.talks(pod, 3, true)
	w.api.create(pod)
	a := w.start(keepsLogs)
	w.stepUntil(func() bool { return w.runtime.Starts("uid-p", "main") == 4 })
	a.waitIdle()
	kept := []string{"p of uid-job: 3: I am main/0.log\n", "p of uid-job: 3: I am main/1.log\n"}
	a.wantKept(kept...)
	if _, err := os.Stat(filepath.Join(w.dir, "logs/ns_p_uid-p/main/2.log")); err != nil {
		t.Errorf("the run before the last, which kubectl logs --previous shows: %v", err)
	}
	if err := w.api.remove(pod, ptr.To[int64](0)); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	a.wantKept(append(kept, "p of uid-job: 3: I am main/2.log\n", "p of uid-job: 3: I am main/3.log\n")...)
}

// Of a container that the runtime has lost the log is there, and is kept: of its
// end what the API was told.
func TestLogsOfLostContainersAreKept(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").ofJob("j").obj()
	w.talks(pod, 5, true)
	w.api.create(pod)
	a := w.start(keepsLogs)
	w.waitPhase(pod, v1.PodFailed)
	a.waitIdle()
	if err := a.node.DeleteAllUnusedContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "logs/ns_p_uid-p/main/7.log"), []byte("nobody knows me\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	a.wantKept("p of uid-job: 5: I am main/0.log\n", "p of uid-job: unknown: nobody knows me\n")
}

// The agent is killed at each step of a pod's deletion: whatever the moment, the log
// is kept by it or the next, once, with the exit code.
func TestKilledWhileKeeping(t *testing.T) {
	for n := 1; n <= 8; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").ofJob("j").obj()
			w.talks(pod, 0, false)
			w.api.create(pod)
			first := w.start(keepsLogs)
			w.waitPhase(pod, v1.PodRunning)
			first.waitIdle()
			first.conn.DieAfter(n)
			if err := w.api.remove(pod, nil); err != nil {
				t.Fatal(err)
			}
			w.waitOrDeath(first, pod, func(p *v1.Pod) bool { return p == nil })
			first.kill()
			second := w.start(keepsLogs)
			w.waitGone(pod)
			second.waitForgotten(pod)
			second.wantKept("p of uid-job: 143: I am main/0.log\n")
			w.mustBeEmpty()
		})
	}
}

// The pod went from the API while no agent was there: all that is known of it is
// what the runtime has. Who asks at once waits until that has been found.
func TestLogsOfOrphansAreKept(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").ofJob("j").obj()
	w.talks(pod, 7, true)
	w.api.create(pod)
	first := w.start(keepsLogs)
	w.waitPhase(pod, v1.PodFailed)
	first.waitIdle()
	first.kill()
	if err := w.api.remove(pod, ptr.To[int64](0)); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	second := w.start(keepsLogs)
	second.wantKept("p of uid-job: 7: I am main/0.log\n")
	w.mustBeEmpty()
}

// On a full disk what is kept goes before any pod is evicted.
func TestAFullDiskTakesKeptLogs(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").ofJob("j").obj()
	w.talks(pod, 0, true)
	w.api.create(pod)
	a := w.start(keepsLogs)
	w.waitPhase(pod, v1.PodSucceeded)
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	a.wantKept("p of uid-job: 0: I am main/0.log\n")
	if err := a.node.DeleteAllUnusedContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.wantKept()
}
