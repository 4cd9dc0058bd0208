package jobs

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// manage brings the number of active pods to what the Job needs.
func (d *draft) manage() {
	switch {
	case d.deleting():
		d.letGo()
	case d.ending != nil && !d.stands:
		// The interim condition has to be written before pods are ended for it.
	case d.ending != nil:
		d.terminate()
	case d.suspended():
		d.rest()
	default:
		want := wantActive(d.job, d.succeeded, d.v.Active)
		if excess := d.v.Active - want; excess > 0 {
			d.remove(excess, true)
			break
		}
		lack := want - d.v.Active
		if replacesFailedOnly(d.job) {
			lack -= d.v.Terminating
		}
		d.create(lack)
	}
	d.resolveRest()
}

// letGo releases the pods of a Job that is being deleted, for the garbage collector to delete. Those that have ended are still counted.
func (d *draft) letGo() {
	if d.v.Tracked == 0 || d.v.Waits[deedRelease] > 0 {
		return
	}
	for _, ref := range d.v.tracked(func(p *pod) bool { return p.outcome == notEnded && !d.isNamed(p.UID) }) {
		d.plan.Release = append(d.plan.Release, release{podRef: ref, Unchanged: true})
	}
}

// create adds n pods, unless a failure delays them.
func (d *draft) create(n int32) {
	if n <= 0 || d.v.Refused {
		return
	}
	wait := max(backoffDelay(d.v.History, d.now, d.lim.PodFailureBackoff, d.lim.MaxPodFailureBackoff), d.v.Waits[deedCreate])
	if wait > 0 {
		d.plan.lookAgain(wait)
		return
	}
	n = min(n, maxPodsPerPlan)
	if d.v.Probing {
		n = 1
	}
	d.plan.Create = append(d.plan.Create, d.v.Unresolved[:min(int(n), len(d.v.Unresolved))]...)
	for int32(len(d.plan.Create)) < n {
		d.plan.Create = append(d.plan.Create, d.slot)
		d.slot++
	}
	d.status.Active += n
}

// resolveRest finds out about creations whose answer was lost and that aren't needed any more.
func (d *draft) resolveRest() {
	if left := d.v.Unresolved[min(len(d.plan.Create), len(d.v.Unresolved)):]; len(left) > 0 {
		if wait := d.v.Waits[deedCreate]; wait > 0 {
			d.plan.lookAgain(wait)
			return
		}
		d.plan.Resolve = left
	}
}

// remove deletes n active pods, those first whose loss costs least. Discarded pods aren't counted.
func (d *draft) remove(n int32, discard bool) {
	if n <= 0 {
		return
	}
	if wait := d.v.Waits[deedDelete]; wait > 0 {
		d.plan.lookAgain(wait)
		return
	}
	for _, p := range d.v.dispensable(min(n, maxPodsPerPlan)) {
		d.plan.Delete = append(d.plan.Delete, deletion{podRef: p.podRef, Discard: discard && p.tracked()})
		d.status.Active--
		d.status.Terminating = ptr.To(*d.status.Terminating + 1)
		if p.ready {
			d.status.Ready = ptr.To(*d.status.Ready - 1)
		}
	}
}

// compareWorth orders pods by what their loss costs, cheapest first: not scheduled, not running, not ready, ready for a short time, often
// restarted, young.
func compareWorth(a, b *pod) int {
	return cmp.Or(
		compareBools(a.scheduled, b.scheduled),
		cmp.Compare(phaseWorth(a.phase), phaseWorth(b.phase)),
		compareBools(a.ready, b.ready),
		younger(a.readyAt, b.readyAt),
		cmp.Compare(b.restarts, a.restarts),
		younger(a.created, b.created),
		cmp.Compare(a.Name, b.Name),
	)
}

func phaseWorth(phase corev1.PodPhase) int {
	switch phase {
	case corev1.PodRunning:
		return 2
	case corev1.PodUnknown:
		return 1
	default:
		return 0
	}
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// younger orders times newest first; a time that isn't set is newest.
func younger(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	default:
		return b.Compare(a)
	}
}
