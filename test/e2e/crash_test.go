//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// kills is how often errand serve is killed while one Job runs.
const kills = 50

// Of the survivor's containers, in the order in which they start, each fifth
// fails. Forty that succeed then take nine that fail.
const (
	succeeding  = 40
	failing     = 9
	failingCode = 7
)

// survivorScript is what they run. Each takes a number, appends a line to a
// ledger on the host at its start, waits to be let through, and appends another
// at its end.
const survivorScript = `n=1; until mkdir /gate/number-$n 2>/dev/null; do n=$((n+1)); done
echo "start $HOSTNAME" >> /gate/ledger; echo "line one"
` + passGate + `; sleep 0.$((n % 4))
code=0; if [ $((n % 5)) = 0 ]; then code=7; fi
echo "line two"; echo "end $HOSTNAME $code" >> /gate/ledger; exit $code`

// errand serve dies fifty times at random moments, half of them while it is
// starting and may not be ready yet, while one Job runs: by the ledger no
// container may have been cut off, none may have been started twice, and the
// Job's counts and the pods' exit codes agree with it. The Job can't be finished
// before the last kill, because too few of its containers are let through.
func TestKillServe(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	e := start(t, "--pod-failure-backoff=10ms", "--max-pod-failure-backoff=100ms", "-v=2")
	e.keepLogs()
	g := newGate(t)
	e.apply(job("survivor", survivorScript, "completions: 40", "parallelism: 8", "backoffLimit: 20") + g.mount())

	var lastKill time.Time
	for i := range kills {
		if i%5 != 0 {
			g.open(1)
		}
		// A pause of random length is the point here: what is waited for is any moment.
		pause := time.NewTimer(time.Duration(random.IntN(600)) * time.Millisecond)
		<-pause.C
		lastKill = time.Now().Truncate(time.Second)
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.launch()
		if i%2 == 0 {
			continue // and kill it on its way
		}
		e.awaitReady()
		if j := e.until("survivor", func(*batchv1.Job) bool { return true }); finished(j) {
			t.Fatalf("after kill %d the Job has finished: %+v", i+1, j.Status)
		}
	}
	g.open(10 * succeeding) // a container too many is to be counted, not to wait
	done := e.until("survivor", finished)

	all := e.pods("survivor")
	pods := withoutCutOff(all)
	failed := failing
	if ctrd != nil {
		failed = len(all) - succeeding // those cut off have taken numbers, too
	}
	if end := done.Status.CompletionTime; done.Status.Succeeded != succeeding || int(done.Status.Failed) != failed || end == nil || end.Time.Before(lastKill) {
		t.Errorf("the Job counts %d succeeded and %d failed, want %d and %d, and an end after %s: %+v",
			done.Status.Succeeded, done.Status.Failed, succeeding, failed, lastKill, done.Status)
	}
	wantLedger(t, g.path("ledger"), pods)
	for _, p := range pods {
		wantLines(t, e.kubectl("logs", p.Name), "line one\nline two")
	}
}

// keepLogs makes a failed test tell what every process said that is started from
// now on, not only the last.
func (e *errand) keepLogs() {
	e.t.Helper()
	f, err := os.Create(filepath.Join(e.t.TempDir(), "errand.log"))
	if err != nil {
		e.t.Fatal(err)
	}
	e.cfg.Log = f
	// Not to be closed here: the process goes on to write to it.
	e.t.Cleanup(func() {
		b, err := os.ReadFile(f.Name())
		if e.t.Failed() {
			e.t.Logf("one after the other, errand said (%v):\n%s", err, b)
		}
	})
}

// wantLedger compares the ledger with the pods: each one started and ended once,
// with the exit code that its status tells.
func wantLedger(t *testing.T, path string, pods []v1.Pod) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(b)) {
		counts[strings.TrimSpace(line)]++
	}
	for line, n := range counts {
		if n != 1 {
			t.Errorf("the ledger says %d times %q", n, line)
		}
	}
	if ctrd == nil && (len(pods) != succeeding+failing || len(counts) != 2*len(pods)) {
		t.Errorf("there are %d pods, and %d different starts and ends in the ledger, want %d and twice that", len(pods), len(counts), succeeding+failing)
	}
	failed := 0
	for _, p := range pods {
		c := p.Status.ContainerStatuses[0]
		// Of a start that containerd gave up, and that is tried again, there is a log.
		if c.State.Terminated == nil || c.RestartCount != 0 && ctrd == nil {
			t.Errorf("pod %s: its container is %+v", p.Name, c)
			continue
		}
		code := c.State.Terminated.ExitCode
		if code == failingCode {
			failed++
		}
		for _, line := range []string{"start " + p.Name, fmt.Sprintf("end %s %d", p.Name, code)} {
			if n := counts[line]; n != 1 {
				t.Errorf("the ledger says %d times %q, want once; the pod's container is %+v", n, line, c)
			}
		}
	}
	if ctrd == nil && failed != failing {
		t.Errorf("%d pods ended with exit code %d, want %d", failed, failingCode, failing)
	}
}

func finished(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == v1.ConditionTrue {
			return true
		}
	}
	return false
}

// The shim is the parent of all containers: its death is theirs. Their ends
// are failures with a reason that says so, and the Job replaces them.
func TestKillShim(t *testing.T) {
	e := start(t)
	check := e.stock()
	e.apply(job("orphaned", "sleep 3600", "parallelism: 2", "completions: 2"))
	e.wait("jsonpath={.status.ready}=2", "job/orphaned")
	before := e.pods("orphaned")

	shim, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	j := e.until("orphaned", func(j *batchv1.Job) bool { return j.Status.Failed == 2 })
	if j.Status.Succeeded != 0 {
		t.Errorf("%d pods succeeded", j.Status.Succeeded)
	}
	for _, p := range before {
		out := e.kubectl("describe", "pod", p.Name)
		for _, want := range []string{"Exit Code:    137", "errand-shim"} {
			if !strings.Contains(out, want) {
				t.Errorf("kubectl describe does not say %q:\n%s", want, out)
			}
		}
	}
	// New pods run under a new shim.
	e.apply(job("after", "true"))
	e.wait("condition=complete", "job/after")
	e.kubectl("delete", "job", "orphaned", "after", "--cascade=foreground")
	check()
}
