// Package probe is a pod's startup, liveness and readiness probes: when they are
// due, what they find, and what follows from that for the container.
//
// Its seam to the node agent is Pod. The agent says which containers run (Watch)
// as often as it looks, and asks what holds (Started, Ready, Unhealthy); when that
// changes, it is told. What to do about it, such as killing a container, is the
// agent's.
//
// A probe between two of its turns is a timer: it has a goroutine only while it
// asks. How results lead to a verdict is in state.go, when the next turn comes in
// schedule.go, both pure; how a container is asked is in ask.go, by the kubelet's
// own packages.
package probe
