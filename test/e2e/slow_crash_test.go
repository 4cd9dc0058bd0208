//go:build e2e && slow

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

const mixedKills = 200

// mixedScript begins what the containers of all three Jobs run: who they are
// goes into a ledger, and they wait to be let through.
const mixedScript = `echo "start $HOSTNAME" >> /gate/ledger; ` + passGate + `; code=0
end() { echo "end $HOSTNAME $code" >> /gate/ledger; exit $code; }
`

// errand serve dies two hundred times at random moments while three Jobs run: one
// of which some indexes fail for good, one whose policy ignores failures, and one
// that is suspended and resumed again and again. The ledger that the containers
// keep on the host agrees with what the Jobs' status says.
func TestSlowKillServeMixed(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	e := start(t, "--pod-failure-backoff=10ms", "--max-pod-failure-backoff=100ms", "-v=2")
	e.keepLogs()
	g := newGate(t)
	e.apply(job("limited", mixedScript+`if [ $((JOB_COMPLETION_INDEX % 4)) = 3 ]; then code=1; fi; end`,
		"completions: 20", "parallelism: 4", "completionMode: Indexed", "backoffLimitPerIndex: 1") + g.mount())
	e.apply(job("ignoring", mixedScript+`n=1; until mkdir /gate/number-$n 2>/dev/null; do n=$((n+1)); done
if [ $((n % 3)) = 0 ]; then code=5; fi; end`,
		"completions: 12", "parallelism: 3", "backoffLimit: 0",
		"podFailurePolicy:", "  rules:", "  - {action: Ignore, onExitCodes: {operator: In, values: [5]}}") + g.mount())
	e.apply(job("toggled", mixedScript+"end", "completions: 10", "parallelism: 3", "completionMode: Indexed") + g.mount())

	suspended := false
	for i := range mixedKills {
		if i%5 == 0 {
			g.open(1)
		}
		if i%10 == 9 {
			suspended = !suspended
			e.kubectl("patch", "job", "toggled", "--patch", fmt.Sprintf(`{"spec":{"suspend":%t}}`, suspended))
		}
		// A pause of random length is the point here: what is waited for is any moment.
		pause := time.NewTimer(time.Duration(random.IntN(400)) * time.Millisecond)
		<-pause.C
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.launch()
		if i%2 == 0 || i%10 == 8 {
			e.awaitReady() // else it is killed on its way
		}
	}
	e.awaitReady()
	if finished(e.until("limited", func(*batchv1.Job) bool { return true })) {
		t.Error("a Job was finished before the last kill")
	}
	e.kubectl("patch", "job", "toggled", "--patch", `{"spec":{"suspend":false}}`)
	g.open(1000)
	limited, ignoring, toggled := e.until("limited", finished), e.until("ignoring", finished), e.until("toggled", finished)

	if s := limited.Status; s.CompletedIndexes != "0-2,4-6,8-10,12-14,16-18" || *s.FailedIndexes != "3,7,11,15,19" || s.Succeeded != 15 || s.Failed != 10 {
		t.Errorf("limited has status %+v", s)
	}
	if s := ignoring.Status; s.Succeeded != 12 || s.Failed != 0 {
		t.Errorf("ignoring has status %+v", s)
	}
	if s := toggled.Status; s.CompletedIndexes != "0-9" || s.Failed != 0 {
		t.Errorf("toggled has status %+v", s)
	}
	e.wantMixedLedger(g.path("ledger"))
}

// wantMixedLedger compares the ledger with what the Jobs must have done.
func (e *errand) wantMixedLedger(path string) {
	e.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(b)) {
		counts[strings.TrimSpace(line)]++
	}
	want := func(n int, line string) {
		if counts[line] != n {
			e.t.Errorf("the ledger says %d times %q, want %d", counts[line], line, n)
		}
	}
	for i := range 20 {
		pods, code := 1, 0
		if i%4 == 3 {
			pods, code = 2, 1
		}
		want(pods, fmt.Sprintf("start limited-%d", i))
		want(pods, fmt.Sprintf("end limited-%d %d", i, code))
	}
	for _, pod := range e.pods("ignoring") {
		want(1, "start "+pod.Name)
		want(1, fmt.Sprintf("end %s %d", pod.Name, pod.Status.ContainerStatuses[0].State.Terminated.ExitCode))
	}
	for i := range 10 {
		// A container may have ended at the moment at which its Job was suspended.
		if n := counts[fmt.Sprintf("end toggled-%d 0", i)]; n == 0 {
			e.t.Errorf("the ledger says that index %d of toggled never ended", i)
		}
	}
}
