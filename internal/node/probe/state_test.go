package probe

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestState(t *testing.T) {
	const s, f, u = Success, Failure, Unknown
	spec := &v1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	once := &v1.Probe{SuccessThreshold: 1, FailureThreshold: 1}
	for name, c := range map[string]struct {
		kind    Kind
		spec    *v1.Probe
		results []Result
		want    []Result // the verdict after each
		settled bool     // in the end
	}{
		"readiness, nothing yet":               {Readiness, spec, nil, nil, false},
		"ready at the threshold":               {Readiness, spec, []Result{s, s}, []Result{f, s}, false},
		"a failure between begins anew":        {Readiness, spec, []Result{s, f, s, s}, []Result{f, f, f, s}, false},
		"stays ready below the threshold":      {Readiness, spec, []Result{s, s, f, f, s, f, f, f}, []Result{f, s, s, s, s, s, s, f}, false},
		"ready again":                          {Readiness, once, []Result{s, f, s}, []Result{s, f, s}, false},
		"alive":                                {Liveness, once, []Result{s, s}, []Result{s, s}, false},
		"alive until the threshold":            {Liveness, spec, []Result{f, f, f}, []Result{s, s, f}, true},
		"dead at once":                         {Liveness, once, []Result{s, f}, []Result{s, f}, true},
		"started":                              {Startup, once, []Result{s}, []Result{s}, true},
		"not started below the threshold":      {Startup, spec, []Result{f, f}, []Result{u, u}, false},
		"never started":                        {Startup, spec, []Result{f, f, f}, []Result{u, u, f}, true},
		"started after failures, not in a row": {Startup, &v1.Probe{SuccessThreshold: 1, FailureThreshold: 3}, []Result{f, f, s}, []Result{u, u, s}, true},
	} {
		t.Run(name, func(t *testing.T) {
			state := Initial(c.kind)
			for i, r := range c.results {
				if state = state.Next(c.spec, r); state.Verdict != c.want[i] {
					t.Errorf("after result %d: %v, want %v", i+1, state.Verdict, c.want[i])
				}
			}
			if got := state.Settled(c.kind); got != c.settled {
				t.Errorf("settled: %v", got)
			}
		})
	}
}

func TestTurns(t *testing.T) {
	begin := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	spec := func(delay, period int32) *v1.Probe {
		return &v1.Probe{InitialDelaySeconds: delay, PeriodSeconds: period}
	}
	for name, c := range map[string]struct{ got, want time.Time }{
		"first, at once":                     {firstTurn(spec(0, 10), Target{StartedAt: begin}, Readiness, at(0.5)), at(0.5)},
		"first, after the delay":             {firstTurn(spec(5, 10), Target{StartedAt: begin}, Readiness, at(0.5)), at(5)},
		"first, the delay is over":           {firstTurn(spec(5, 10), Target{StartedAt: begin}, Liveness, at(7)), at(7)},
		"next, a period after the beginning": {nextTurn(spec(0, 10), at(3), at(4)), at(13)},
		"next, at once after a long one":     {nextTurn(spec(0, 1), at(3), at(7)), at(7)},
		"no period given":                    {nextTurn(spec(0, 0), at(3), at(3)), at(4)},
	} {
		if !c.got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, c.got.Sub(begin), c.want.Sub(begin))
		}
	}
}

// Probes of containers that were found running are spread over their periods, and
// each has its place.
func TestSpread(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	spec := &v1.Probe{PeriodSeconds: 10}
	var quarters [4]int
	for i := range 1000 {
		target := Target{ID: "container-" + string(rune('a'+i%26)) + string(rune('a'+i/26)), StartedAt: now.Add(-time.Hour), Found: true}
		turn := firstTurn(spec, target, Liveness, now)
		if again := firstTurn(spec, target, Liveness, now); !again.Equal(turn) {
			t.Fatal("another place at the second look")
		}
		d := turn.Sub(now)
		if d < 0 || d >= 10*time.Second {
			t.Fatalf("%v later", d)
		}
		quarters[d/(2500*time.Millisecond)]++
	}
	for i, n := range quarters {
		if n < 150 {
			t.Errorf("of 1000 probes %d fall into quarter %d of the period", n, i+1)
		}
	}
}
