package jobrun

import (
	"context"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// containerID is what tells one try of a container from the next in what runtimes say of them.
var containerID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// eventsAbout are the events about one object, as far as they are known.
type eventsAbout struct {
	about  types.UID
	events []*corev1.Event
	synced bool // there is no use in waiting for more
	stop   context.CancelFunc
}

// look finds what holds the Job up, and says so once that has taken its time. It
// looks for events only then: most Jobs never need any.
func (f *follower) look() {
	if stands := standing(f.job); stands != f.stands {
		f.stands = stands
		if stands != "" && endOf(f.job).State == Unfinished {
			f.output.Say("job/%s %s", f.job.Name, stands)
		}
	}
	name, about := f.heldUp()
	if about == "" {
		f.due.Stop()
		return
	}
	if rest := time.Until(f.since[about].Add(holdUpAfter)); rest > 0 {
		f.due.Reset(rest)
		return
	}
	if !f.askEvents(about) {
		return
	}
	why := f.why(about)
	if what := name + containerID.ReplaceAllString(why, ""); why != "" && !f.said[what] {
		f.said[what] = true
		f.output.Say("%s %s", name, why)
	}
}

// heldUp is what has been held up for the longest time, the Job or a pod of its; ""
// if nothing is. What isn't held up any more starts anew when it is again.
func (f *follower) heldUp() (name string, about types.UID) {
	now := time.Now()
	consider := func(n string, uid types.UID, why string) {
		if why == "" {
			delete(f.since, uid)
			return
		}
		if _, known := f.since[uid]; !known {
			f.since[uid] = now
		}
		if about == "" || f.since[uid].Before(f.since[about]) {
			name, about = n, uid
		}
	}
	consider("job/"+f.job.Name, f.job.UID, f.why(f.job.UID))
	f.order = slices.DeleteFunc(f.order, func(uid types.UID) bool {
		if f.pods[uid] == nil {
			delete(f.since, uid)
		}
		return f.pods[uid] == nil
	})
	for _, uid := range f.order {
		consider("pod "+f.pods[uid].Name, uid, f.why(uid))
	}
	return name, about
}

// why is what holds an object up, as far as its events are known.
func (f *follower) why(about types.UID) string {
	var events []*corev1.Event
	for _, e := range []*eventsAbout{f.events, f.ofJob} {
		if e != nil && e.about == about {
			events = e.events
		}
	}
	if about != f.job.UID {
		return podHoldUp(f.pods[about], events)
	}
	return jobHoldUp(f.job, f.made, len(f.pods), events)
}

// askEvents watches the events about an object, in place of those about another, and
// says whether those there were are known.
func (f *follower) askEvents(about types.UID) bool {
	kept := &f.events
	if about == f.job.UID {
		kept = &f.ofJob
	}
	if *kept != nil && (*kept).about == about {
		return (*kept).synced
	}
	if *kept != nil {
		(*kept).stop()
	}
	e := &eventsAbout{about: about}
	*kept = e
	var ctx context.Context
	ctx, e.stop = context.WithCancel(f.ctx)
	f.watches.watchEvents(ctx, f.job.Namespace, about, told[*corev1.Event]{
		seen: func(event *corev1.Event) {
			e.events = slices.DeleteFunc(e.events, func(known *corev1.Event) bool { return known.UID == event.UID })
			e.events = append(e.events, event)
		},
		gone:   func(*corev1.Event) {},
		synced: func() { e.synced = true },
		lost:   func(error) { e.synced = true }, // whoever may not see events hears what the objects themselves tell
		back:   func() {},
	})
	return false
}
