// Package eviction keeps the node alive when memory, disk or process IDs run
// out: it says which pressures there are, keeps pods away meanwhile, and ends
// pods, one at a time, until there is room again. It also ends pods that take more
// of the disk than they may.
//
// The decisions are the kubelet's own eviction manager's, as it is: thresholds,
// order, messages, events. This package owns what it stands on: readings of the
// machine (host.go), what pods use (summary.go, usage.go), and the way to the
// node agent, which ends pods. It doesn't own the Node's conditions and taints
// (package registration asks for them), nor images (imagegc).
//
// # What it costs
//
// A look, every ten seconds as the kubelet's, reads a few small files. Pods are
// asked for only when a threshold is met; disks are walked then, and otherwise only
// those of pods with a limit on them, and never for more than a twentieth of the
// time.
package eviction
