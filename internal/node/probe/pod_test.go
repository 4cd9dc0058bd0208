package probe

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/clock"
	utilexec "k8s.io/utils/exec"
)

// fixture is a pod's probes under a bubble's clock, answered by a test.
type fixture struct {
	*Pod
	begin   time.Time
	cancel  context.CancelFunc
	changes chan struct{}

	mu     sync.Mutex
	answer func(ctx context.Context, command string) error
	asked  []string // command and when
	events []string
}

func newFixture(t *testing.T, answer func(ctx context.Context, command string) error) *fixture {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fixture{begin: time.Now(), cancel: cancel, answer: answer, changes: make(chan struct{}, 100)}
	prober := New(Config{
		Clock: clock.RealClock{},
		Spawn: func(g func(context.Context)) bool { go g(ctx); return true },
		Event: func(_ *v1.Pod, c *v1.Container, reason, message string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, c.Name+" "+reason+": "+message)
		},
		Exec: func(ctx context.Context, id string, command []string, _ time.Duration) ([]byte, error) {
			what := id + " " + command[0]
			f.mu.Lock()
			f.asked = append(f.asked, what+" "+time.Since(f.begin).String())
			f.mu.Unlock()
			err := f.answer(ctx, what)
			if err != nil {
				return []byte(err.Error()), err
			}
			return nil, nil
		},
	})
	f.Pod = prober.Pod(func() { f.changes <- struct{}{} })
	t.Cleanup(cancel)
	return f
}

func (f *fixture) takeAsked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *fixture) setAnswer(answer func(ctx context.Context, command string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func execProbe(command string, period int32) *v1.Probe {
	return &v1.Probe{
		ProbeHandler:  v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{command}}},
		PeriodSeconds: period, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1,
	}
}

func (f *fixture) target(id string, c *v1.Container) Target {
	return Target{ID: id, Container: c, StartedAt: f.begin}
}

// fail is the answer of a command that fails.
var fail = utilexec.CodeExitError{Err: errors.New("no"), Code: 1}

func yes(context.Context, string) error { return nil }
func no(context.Context, string) error  { return fail }

// pass lets time pass, and what is due in it happen.
func pass(d time.Duration) {
	time.Sleep(d) // a bubble's time
	synctest.Wait()
}

func want(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Until the startup probe has succeeded nothing else is asked; from then on it
// isn't any more.
func TestStartupGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, no)
		c := &v1.Container{Name: "c", StartupProbe: execProbe("startup", 1), LivenessProbe: execProbe("liveness", 10), ReadinessProbe: execProbe("readiness", 10)}
		c.StartupProbe.FailureThreshold = 5
		f.Watch(&v1.Pod{}, false, []Target{f.target("x", c)})
		pass(1500 * time.Millisecond)
		want(t, f.takeAsked(), []string{"x startup 0s", "x startup 1s"})
		if f.Started("x") || f.Ready("x") {
			t.Error("it counts as started")
		}
		f.setAnswer(yes)
		pass(time.Second)
		asked := f.takeAsked()
		if len(asked) != 3 || asked[0] != "x startup 2s" || !strings.HasSuffix(asked[1], " 2s") || !strings.HasSuffix(asked[2], " 2s") {
			t.Errorf("asked %v", asked)
		}
		if !f.Started("x") || !f.Ready("x") {
			t.Error("it doesn't count as started and ready")
		}
		pass(9 * time.Second)
		if asked := f.takeAsked(); len(asked) != 0 {
			t.Errorf("asked %v before its time", asked)
		}
		pass(time.Second)
		if asked := f.takeAsked(); len(asked) != 2 {
			t.Errorf("asked %v", asked)
		}
	})
}

// A startup or liveness probe that has failed too often is told of, and isn't
// asked again.
func TestUnhealthy(t *testing.T) {
	for kind, set := range map[string]func(*v1.Container, *v1.Probe){
		"startup":  func(c *v1.Container, p *v1.Probe) { c.StartupProbe = p },
		"liveness": func(c *v1.Container, p *v1.Probe) { c.LivenessProbe = p },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, no)
			c, p := &v1.Container{Name: "c"}, execProbe(kind, 2)
			p.FailureThreshold, p.InitialDelaySeconds = 2, 3
			set(c, p)
			f.Watch(&v1.Pod{}, false, []Target{f.target("x", c)})
			pass(4 * time.Second)
			if u := f.Unhealthy(); u != nil {
				t.Errorf("%v after one failure", u)
			}
			pass(time.Minute)
			want(t, f.Unhealthy(), map[string]string{"x": kind})
			want(t, f.takeAsked(), []string{"x " + kind + " 3s", "x " + kind + " 5s"})
			title := strings.ToUpper(kind[:1]) + kind[1:]
			want(t, f.events, []string{"c Unhealthy: " + title + " probe failed: no", "c Unhealthy: " + title + " probe failed: no"})
			if len(f.changes) != 1 {
				t.Errorf("told %d times", len(f.changes))
			}
		})
	}
}

// What can't be carried out is tried three times, told of, and doesn't count.
func TestErrored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(context.Context, string) error { return errors.New("no such thing") })
		f.Watch(&v1.Pod{}, false, []Target{f.target("x", &v1.Container{Name: "c", LivenessProbe: execProbe("ask", 10)})})
		pass(time.Second)
		want(t, f.takeAsked(), []string{"x ask 0s", "x ask 0s", "x ask 0s"})
		want(t, f.events, []string{"c Unhealthy: Liveness probe errored and resulted in unknown state: no such thing"})
		if u := f.Unhealthy(); u != nil {
			t.Error(u)
		}
	})
}

// A probe that hangs holds up no other, and ends with its container.
func TestHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		f := newFixture(t, func(ctx context.Context, command string) error {
			if command == "x hang" {
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			}
			return nil
		})
		one := f.target("x", &v1.Container{Name: "one", ReadinessProbe: execProbe("hang", 1)})
		two := f.target("y", &v1.Container{Name: "two", ReadinessProbe: execProbe("ask", 1)})
		f.Watch(&v1.Pod{}, false, []Target{one, two})
		pass(2500 * time.Millisecond)
		want(t, len(f.takeAsked()), 4) // the one once, the other three times
		if f.Ready("x") || !f.Ready("y") {
			t.Error("not only the other is ready")
		}
		f.Watch(&v1.Pod{}, false, []Target{two})
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("the probe outlives its container")
		}
		if len(f.events) != 0 {
			t.Errorf("told of it: %v", f.events)
		}
	})
}

// A pod that is ending is asked for its readiness only, and nothing once its
// containers are gone.
func TestEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, yes)
		x := f.target("x", &v1.Container{Name: "c", LivenessProbe: execProbe("liveness", 1), ReadinessProbe: execProbe("readiness", 1)})
		f.Watch(&v1.Pod{}, false, []Target{x})
		pass(500 * time.Millisecond)
		f.takeAsked()
		f.Watch(&v1.Pod{}, true, []Target{x})
		f.setAnswer(no)
		pass(time.Second)
		want(t, f.takeAsked(), []string{"x readiness 1s"})
		if f.Ready("x") || f.Unhealthy() != nil {
			t.Errorf("ready: %v, unhealthy: %v", f.Ready("x"), f.Unhealthy())
		}
		f.Watch(&v1.Pod{}, true, nil)
		pass(time.Minute)
		if asked := f.takeAsked(); len(asked) != 0 {
			t.Errorf("asked %v", asked)
		}
	})
}

// What an earlier agent reported holds until there are other results.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, no)
		c := &v1.Container{Name: "c", StartupProbe: execProbe("startup", 10), ReadinessProbe: execProbe("readiness", 10)}
		c.ReadinessProbe.FailureThreshold = 2
		x := f.target("x", c)
		x.StartedAt, x.Found, x.Started, x.Ready = f.begin.Add(-time.Hour), true, true, true
		f.Watch(&v1.Pod{}, false, []Target{x})
		pass(10 * time.Second)
		if !f.Started("x") || !f.Ready("x") {
			t.Error("it is doubted below the threshold")
		}
		pass(10 * time.Second)
		if !f.Started("x") || f.Ready("x") {
			t.Error("started is doubted, or two failures are not enough")
		}
		for _, asked := range f.takeAsked() {
			if strings.Contains(asked, "startup") {
				t.Errorf("asked %s", asked)
			}
		}
	})
}

// A thousand containers with two probes each take no goroutine while nothing is
// due, and no look at a container costs anything that isn't due.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, yes)
		var targets []Target
		for i := range 1000 {
			c := &v1.Container{Name: "c", LivenessProbe: execProbe("l", 10), ReadinessProbe: execProbe("r", 10)}
			targets = append(targets, f.target(string(rune('A'+i)), c))
		}
		f.changes = make(chan struct{}, 1000)
		before := runtime.NumGoroutine()
		f.Watch(&v1.Pod{}, false, targets)
		pass(time.Second)
		want(t, len(f.takeAsked()), 2000)
		for range 100 {
			f.Watch(&v1.Pod{}, false, targets)
		}
		pass(8 * time.Second)
		want(t, len(f.takeAsked()), 0)
		if n := runtime.NumGoroutine() - before; n > 0 {
			t.Errorf("%d goroutines", n)
		}
		pass(time.Second)
		want(t, len(f.takeAsked()), 2000)
	})
}

// What probes found is counted under the kubelet's names, until the pod has ended.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, yes)
		registry := metrics.NewKubeRegistry()
		for _, m := range f.prober.Metrics() {
			if err := registry.Register(m); err != nil {
				t.Fatal(err)
			}
		}
		c := v1.Container{Name: "c", LivenessProbe: execProbe("ask", 1)}
		c.LivenessProbe.FailureThreshold = 3
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{c}}}
		x := f.target("x", &c)
		f.Watch(pod, false, []Target{x})
		pass(1500 * time.Millisecond)
		f.setAnswer(no)
		pass(time.Second)
		const name = "prober_probe_total"
		want := `
			# HELP prober_probe_total [BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.
			# TYPE prober_probe_total counter
			prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="failed"} 1
			prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="successful"} 2
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), name); err != nil {
			t.Error(err)
		}
		f.Watch(pod, false, nil) // it restarts: what was counted stays
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), name); err != nil {
			t.Error(err)
		}
		f.Watch(pod, true, nil)
		if found, err := registry.Gather(); err != nil || len(found) != 0 {
			t.Errorf("after the pod's end there are %v, %v", found, err)
		}
	})
}
