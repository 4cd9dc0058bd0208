package jobs

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// settle does the accounting (KEP-2307). Pods that status names as uncounted and that have lost the finalizer are counted; the others are still to
// be released. Then pods that have ended since are named, as many as there is room for.
func (d *draft) settle() {
	u := d.status.UncountedTerminatedPods
	v := d.v
	var held int64
	count := func(uids []types.UID, counter *int32) []types.UID {
		var kept []types.UID
		for _, uid := range uids {
			if ref, ok := v.held(uid); ok {
				kept = append(kept, uid)
				d.release(ref)
				held++
				continue
			}
			*counter++
		}
		return kept
	}
	d.slot = d.firstSlot()
	u.Succeeded = count(u.Succeeded, &d.status.Succeeded)
	u.Failed = count(u.Failed, &d.status.Failed)

	room := maxUncounted - len(u.Succeeded) - len(u.Failed)
	for _, e := range v.Waiting[:min(max(room, 0), len(v.Waiting))] {
		if e.Succeeded {
			u.Succeeded = append(u.Succeeded, e.UID)
		} else {
			u.Failed = append(u.Failed, e.UID)
		}
		d.release(e.podRef)
	}
	// held pods are in status and in v.Tracked, waiting ones only in the sums.
	d.slot = max(d.slot+int64(v.Tracked)-held, v.NextSlot)
	d.succeeded = d.job.Status.Succeeded + d.named(succeeded) + v.Succeeded
	d.failed = d.job.Status.Failed + d.named(failed) + v.Failed
	d.plan.lookAgain(v.Waits[deedRelease])
}

// firstSlot is the number of pods that the Job's status tells of. Together with those that are alive and not in it, it is the number of pods that
// the Job has had.
func (d *draft) firstSlot() int64 {
	s := &d.job.Status
	return int64(s.Succeeded) + int64(s.Failed) + int64(d.named(succeeded)) + int64(d.named(failed))
}

// named is how many pods the Job's status names as uncounted.
func (d *draft) named(o outcome) int32 {
	u := d.job.Status.UncountedTerminatedPods
	switch {
	case u == nil:
		return 0
	case o == succeeded:
		return int32(len(u.Succeeded))
	default:
		return int32(len(u.Failed))
	}
}

// isNamed says whether the Job's status names the pod as uncounted.
func (d *draft) isNamed(uid types.UID) bool {
	u := d.job.Status.UncountedTerminatedPods
	return u != nil && (slices.Contains(u.Succeeded, uid) || slices.Contains(u.Failed, uid))
}

func (d *draft) release(ref podRef) {
	if d.v.Waits[deedRelease] == 0 {
		d.plan.Release = append(d.plan.Release, release{podRef: ref})
	}
}
