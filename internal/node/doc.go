// Package node is the node agent: it makes the pods that are bound to its node
// run, and their statuses true.
//
// Data flows one way. The pod informer and the runtime's events wake a pod's
// worker; the worker observes what the runtime has of the pod (package
// runtimepod), plans (plan), acts through the CRI on configurations that crispec
// makes, and generates the status (podstatus), which its statusWriter brings to
// the API:
//
//	informer ─┐                 ┌─▶ CRI
//	events ───┼─▶ worker: observe ─▶ plan ─▶ act
//	timers ───┤      └─▶ podstatus ─▶ statusWriter ─▶ API
//	probes ───┘
//
// Nothing is polled but what a pod's probes ask for (package probe), and a worker
// has a goroutine only while it has something to do. What takes long (pulling an
// image, a lifecycle hook, waiting for a container to stop) runs beside the worker,
// which goes on reporting meanwhile.
//
// # What survives a crash
//
// There is no state file. What runs is what the runtime lists, by the labels on
// it; what was reported is what the API has. Each run of a container is created
// before it is started and counted by an annotation, a status is generated from
// what is there and not from what was done, and what ran is kept until its pod
// is gone from the API: so an agent that dies between any two steps is followed
// by one that neither starts anything twice nor loses an exit code. Lifecycle hooks
// are the exception that the API makes: what was under way is carried out again.
//
// # What it doesn't own
//
// Which pods it gets (the binder), registering the node, the HTTP server for logs
// and exec, and volumes, each in a package of its own. Pods that ask for what
// can't be done here are refused with status Failed and reason
// UnsupportedPodSpec.
package node
