package jobs

import (
	"cmp"
	"slices"
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
		want := wantActive(d.job, d.succeeded, d.failedIndexes.total(), d.v.Active)
		if excess := max(d.v.Active-want, d.v.surplus); excess > 0 {
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
	if wait := max(d.backoff(), d.v.Waits[deedCreate]); wait > 0 {
		d.plan.lookAgain(wait)
		return
	}
	n = min(n, maxPodsPerPlan)
	if d.v.Probing {
		n = 1
	}
	if d.v.Indexes != nil {
		d.createIndexes(int(n))
	} else {
		d.createNext(int(n))
	}
	d.status.Active += int32(len(d.plan.Create))
}

// createNext adds n pods of which one is like the other.
func (d *draft) createNext(n int) {
	for _, slot := range d.v.Unresolved[:min(n, len(d.v.Unresolved))] {
		d.plan.Create = append(d.plan.Create, creation{Slot: slot})
	}
	for len(d.plan.Create) < n {
		d.plan.Create = append(d.plan.Create, creation{Slot: d.slot})
		d.slot++
	}
}

// createIndexes adds pods for the n lowest indexes that need one. Where each index fails for itself, one that has to wait after a failure gives its turn to
// the next. Slots that may hold a pod already come first: until that is known, each takes up the place of a pod.
func (d *draft) createIndexes(n int) {
	x := d.v.Indexes
	over := d.doneIndexes.union(d.failedIndexes)
	suspected := map[int32]bool{}
	for _, slot := range d.v.Unresolved {
		index := indexOfSlot(slot)
		suspected[index] = true
		if len(d.plan.Create) >= n {
			return
		}
		if !x.inRange(index) || over.has(index) || !d.createIndex(slot) {
			n-- // resolveRest looks after it
		}
	}
	for index := range over.missing(x.completions) {
		if len(d.plan.Create) >= n {
			return
		}
		if !suspected[index] {
			d.createIndex(slotOf(index, x.attempts[index]))
		}
	}
}

// createIndex adds a pod for the slot's index, unless it has one or has to wait.
func (d *draft) createIndex(slot int64) bool {
	index := indexOfSlot(slot)
	if !d.v.Indexes.vacant(index) {
		return false
	}
	before, wait := d.indexHistory(index)
	if wait > 0 {
		d.plan.lookAgain(wait)
		return false
	}
	d.plan.Create = append(d.plan.Create, creation{Slot: slot, Before: before})
	return true
}

// resolveRest finds out about creations whose answer was lost and that aren't needed any more.
func (d *draft) resolveRest() {
	var left []int64
	for _, slot := range d.v.Unresolved {
		if !slices.ContainsFunc(d.plan.Create, func(c creation) bool { return c.Slot == slot }) {
			left = append(left, slot)
		}
	}
	if len(left) > 0 {
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
