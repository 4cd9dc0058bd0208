package jobs

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// view is what decide sees of a Job's pods. It is valid while the state that it was taken from is locked.
type view struct {
	sums
	// Waiting are the ended pods that are to be counted next, in the order in which their ends were learnt; at most as many as status can take.
	Waiting []ended
	History failureHistory
	Claims  []claim
	// Pull is what has kept a pod from its image for longest; the zero value if nothing does.
	Pull failingPull
	// Indexes of an Indexed Job; else nil.
	Indexes *indexes

	// NextSlot is the lowest slot that this process hasn't used; Unresolved slots may or may not hold a pod.
	NextSlot   int64
	Unresolved []int64
	// Refused says that the namespace takes no new pods.
	Refused bool
	// Waits are how long failed deeds have to wait yet; Probing says that only a single pod may be created, to see whether it works again.
	Waits   [deeds]time.Duration
	Probing bool
	// StartedAt is the exact time behind status.startTime, if known.
	StartedAt time.Time

	pods map[types.UID]*pod
}

// ended is a pod that has ended (or counts as such).
type ended struct {
	podRef
	Outcome outcome
	Verdict verdict
	// Index is the pod's completion index; FailsIndex says that it is given up with this pod.
	Index      int32
	FailsIndex bool
}

// claim is a pod to be adopted, or to be let go.
type claim struct {
	podRef
	Adopt bool
}

// view shows the state as of now. The caller holds s.mu for as long as it uses it.
func (s *jobState) view(now time.Time) *view {
	v := &view{
		sums:       s.sum,
		History:    s.history,
		Indexes:    s.indexes,
		NextSlot:   s.nextSlot,
		Unresolved: s.unresolved,
		Refused:    s.refused,
		Probing:    s.held[deedCreate].Failures > 0,
		StartedAt:  s.startedAt,
		pods:       s.pods,
	}
	for d := range deeds {
		v.Waits[d] = s.held.wait(d, now)
	}
	for e := s.waiting.Front(); e != nil && len(v.Waiting) < maxUncounted; e = e.Next() {
		p := e.Value.(*pod)
		v.Waiting = append(v.Waiting, ended{p.podRef, p.outcome, p.verdict, p.index, p.failsIndex})
	}
	for _, p := range s.imageless {
		if v.Pull.none() || p.pull.since.Before(v.Pull.since) || p.pull.since.Equal(v.Pull.since) && p.pull.message < v.Pull.message {
			v.Pull = p.pull
		}
	}
	for _, p := range s.misfits {
		v.Claims = append(v.Claims, claim{podRef: p.podRef})
	}
	for _, obj := range s.orphans {
		v.Claims = append(v.Claims, claim{podRef: refOf(obj), Adopt: true})
	}
	slices.SortFunc(v.Claims, func(a, b claim) int { return cmp.Compare(a.UID, b.UID) })
	return v
}

func refOf(obj *corev1.Pod) podRef {
	var p pod
	p.read(obj)
	return p.podRef
}

// held returns the pod if it still carries the tracking finalizer, else nil.
func (v *view) held(uid types.UID) *pod {
	if p := v.pods[uid]; p != nil && p.tracked() {
		return p
	}
	return nil
}

// tracked returns the pods that carry the tracking finalizer and satisfy which, by name.
func (v *view) tracked(which func(*pod) bool) []podRef {
	refs := make([]podRef, 0, v.Tracked)
	for p := range maps.Values(v.pods) {
		if p.tracked() && which(p) {
			refs = append(refs, p.podRef)
		}
	}
	slices.SortFunc(refs, func(a, b podRef) int { return cmp.Compare(a.Name, b.Name) })
	return refs
}

// dispensable returns n of the active pods: surplus ones first, then those whose loss costs least.
func (v *view) dispensable(n int32) []*pod {
	active := make([]*pod, 0, v.Active)
	for p := range maps.Values(v.pods) {
		if p.stage == stageActive {
			active = append(active, p)
		}
	}
	slices.SortFunc(active, func(a, b *pod) int {
		return cmp.Or(compareBools(b.surplus, a.surplus), compareWorth(a, b))
	})
	return active[:min(int(n), len(active))]
}
