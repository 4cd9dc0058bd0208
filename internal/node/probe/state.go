package probe

import v1 "k8s.io/api/core/v1"

// Kind is what a probe is for.
type Kind int

const (
	// Startup gates the two others and the container's status "started".
	Startup Kind = iota
	// Liveness has the container killed if it fails.
	Liveness
	// Readiness is the container's status "ready".
	Readiness
	kinds
)

// String is how events begin.
func (k Kind) String() string {
	return [...]string{Startup: "Startup", Liveness: "Liveness", Readiness: "Readiness"}[k]
}

// specOf returns the container's probe of the kind, nil if it has none.
func (k Kind) specOf(c *v1.Container) *v1.Probe {
	return [...]*v1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe}[k]
}

// Result is what one probe found, or what holds after several.
type Result int

const (
	// Unknown: not asked yet, or not often enough.
	Unknown Result = iota
	Success
	Failure
)

// State is what the results of a container's probe come to.
type State struct {
	// Verdict is what holds. It changes only once a threshold is reached.
	Verdict Result
	last    Result // the last result
	inRow   int32  // how many like it came in a row
}

// Initial is the state before the first result: alive, but not ready.
func Initial(k Kind) State {
	return State{Verdict: [...]Result{Startup: Unknown, Liveness: Success, Readiness: Failure}[k]}
}

// Next is the state after another result, Success or Failure.
func (s State) Next(spec *v1.Probe, r Result) State {
	if r != s.last {
		s.last, s.inRow = r, 0
	}
	s.inRow++
	threshold := spec.FailureThreshold
	if r == Success {
		threshold = spec.SuccessThreshold
	}
	if s.inRow >= threshold {
		s.Verdict = r
	}
	return s
}

// Settled tells that the verdict is final for this run of the container, which
// need not be asked any more.
func (s State) Settled(k Kind) bool {
	switch k {
	case Startup:
		return s.Verdict != Unknown
	case Liveness:
		return s.Verdict == Failure
	default:
		return false
	}
}
