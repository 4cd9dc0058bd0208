// Package podtrace keeps where the time of recent pods went: one tree of steps a
// pod, from the Job engine's decision to its having counted the pod's end.
//
// It owns the record, in memory, of the last pods, and hands every step that has
// ended to a Sink, which may send it elsewhere (package otlp does). It knows
// nothing of the API's objects, nor of who does a step: those who do say so.
//
// # How steps find their pod
//
// Nothing is stored in the user's objects for it. A trace's ID is the pod's UID,
// and the ID of the span that all others are below, the pod's own, is the first
// half of the UID: whoever knows the pod knows both, whatever process it is and
// after whatever restart. Within one component a context carries the step that is
// being done, so that those who are called, who may know no pods, can add steps
// below it; a context that carries none makes Start do nothing.
//
// # What it costs
//
// A step is two readings of the clock and about 100 bytes; a pod has some twenty.
// The last Keep pods that have ended are kept, and those that haven't, which are
// bounded, too. Without a Sink that is all.
package podtrace
