package binder

import (
	"container/list"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/indexheap"
	"errand.dev/errand/internal/podtrace"
)

// queue holds the pods that wait for a node, those with the same needs in one
// class. Classes that may fit are ordered by priority, then by who came first.
// It isn't safe for concurrent use.
type queue struct {
	pods    map[types.UID]*waiting
	classes map[string]*class
	active  *indexheap.Heap[*class] // those that aren't blocked
	untold  list.List               // of *waiting, in the order in which they came to be
	arrived uint64
}

// waiting is a pod without a node.
type waiting struct {
	pod      *v1.Pod
	info     *podInfo
	class    *class             // nil while the pod is held: gated, or after a failed binding
	solo     bool               // its class is its own
	failures int                // bindings that failed in a row
	victims  map[types.UID]bool // pods that were evicted in its favour
	trace    podtrace.Pod
	placing  *podtrace.Span // from its coming to its having a node
	told     string         // what its condition says
	order    uint64
	place    *list.Element // in class.pods
	untold   *list.Element // in queue.untold
}

// class is pods that fit the same nodes.
type class struct {
	indexheap.Place // in queue.active

	key      string
	priority int32
	pods     list.List  // of *waiting, first come first
	blocked  *diagnosis // why none of them fits
	told     string     // what all of them have been told or are about to be
}

func newQueue() *queue {
	return &queue{pods: map[types.UID]*waiting{}, classes: map[string]*class{}, active: indexheap.New((*class).before)}
}

// head is the pod to decide on next, nil if none may fit.
func (q *queue) head() *waiting {
	if q.active.Len() == 0 {
		return nil
	}
	return q.active.First().first()
}

func (c *class) first() *waiting { return c.pods.Front().Value.(*waiting) }

// add queues a pod, or one that was held. A class that was found not to fit is
// not tried again for it.
func (q *queue) add(w *waiting) {
	if w.order == 0 {
		q.arrived++
		w.order = q.arrived
	}
	q.pods[w.info.uid] = w
	key := soloKey(w.info.uid)
	if !w.solo {
		key = w.info.classKey()
	}
	c, ok := q.classes[key]
	if !ok {
		c = &class{key: key, priority: w.info.priority}
		q.classes[key] = c
	}
	w.class = c
	w.place = insertInOrder(&c.pods, w)
	if c.blocked != nil {
		q.tell(w)
		return
	}
	c.told = ""
	q.active.Put(c)
}

// insertInOrder keeps those that came first in front; nearly always that is the end.
func insertInOrder(l *list.List, w *waiting) *list.Element {
	for e := l.Back(); e != nil; e = e.Prev() {
		if e.Value.(*waiting).order < w.order {
			return l.InsertAfter(w, e)
		}
	}
	return l.PushFront(w)
}

// hold keeps a pod without deciding on it, until add.
func (q *queue) hold(w *waiting) {
	q.leaveClass(w)
	if w.order == 0 {
		q.arrived++
		w.order = q.arrived
	}
	q.pods[w.info.uid] = w
}

// remove takes a pod out, whatever state it is in, and returns it; nil if it
// isn't there.
func (q *queue) remove(uid types.UID) *waiting {
	w, ok := q.pods[uid]
	if !ok {
		return nil
	}
	q.leaveClass(w)
	delete(q.pods, uid)
	return w
}

func (q *queue) leaveClass(w *waiting) {
	if w.untold != nil {
		q.untold.Remove(w.untold)
		w.untold = nil
	}
	c := w.class
	if c == nil {
		return
	}
	c.pods.Remove(w.place)
	w.class, w.place = nil, nil
	if c.pods.Len() == 0 {
		q.active.Remove(c)
		delete(q.classes, c.key)
	} else if c.blocked == nil {
		q.active.Put(c)
	}
}

// block notes that a pod, and with it its class, fits nowhere, and that those
// of the class who don't know, or know another reason, are to be told.
func (q *queue) block(w *waiting, why *diagnosis) {
	if why.individual && !w.solo {
		q.leaveClass(w)
		w.solo = true
		q.add(w)
	}
	c := w.class
	c.blocked = why
	q.active.Remove(c)
	text := why.String()
	if text == c.told {
		return // as after most events, so that a large class costs no more
	}
	c.told = text
	for e := c.pods.Front(); e != nil; e = e.Next() {
		if other := e.Value.(*waiting); other.told != text {
			q.tell(other)
		}
	}
}

// failedToTell notes that a pod's condition doesn't say what it was to say.
func (q *queue) failedToTell(w *waiting) {
	w.told = ""
	if w.class != nil {
		w.class.told = ""
	}
}

func (q *queue) tell(w *waiting) {
	quiet := w.class.blocked != nil && w.class.blocked.quiet
	if w.untold == nil && !quiet {
		w.untold = q.untold.PushBack(w)
	}
}

// tellAll has every pod told that is known to fit nowhere, whatever it was told before.
func (q *queue) tellAll() {
	for _, w := range q.pods {
		if w.class != nil && w.class.blocked != nil {
			w.told = ""
			q.tell(w)
		}
	}
}

// untold is a pod whose condition doesn't say what it should, with what it should
// say. event tells that an event is to say it too: not for each pod of a class that
// waits for another reason than before.
type untold struct {
	pod   *v1.Pod
	why   *diagnosis
	event bool
	lost  bool // no room is kept for it any more
}

// takeUntold returns the next pod to be told, nil if there is none.
func (q *queue) takeUntold() *untold {
	for {
		e := q.untold.Front()
		if e == nil {
			return nil
		}
		w := q.untold.Remove(e).(*waiting)
		w.untold = nil
		if w.class == nil || w.class.blocked == nil {
			continue
		}
		if text := w.class.blocked.String(); text != w.told {
			u := &untold{pod: w.pod, why: w.class.blocked, event: w.told == "" || w == w.class.first()}
			w.told = text
			return u
		}
	}
}

// happened lets the classes try again that the event may have cured.
func (q *queue) happened(e event) {
	for _, c := range q.classes {
		if c.blocked != nil && c.blocked.curedBy(e) {
			c.blocked = nil
			q.active.Put(c)
		}
	}
}

// before orders classes by priority, then by their first pod's arrival.
func (c *class) before(other *class) bool {
	if c.priority != other.priority {
		return c.priority > other.priority
	}
	return c.first().order < other.first().order
}
