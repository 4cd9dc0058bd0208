// Package cri is errand's embedded container runtime: the CRI's RuntimeService
// as a Go object, over OCI runtimes, an image store and a pod network.
//
// It owns pod sandboxes and containers: their states, their records, the order
// in which what belongs to them is made and unmade, and the events that tell of
// it. It owns no processes: package oci's parent process does, and outlives
// this one. It knows nothing of Kubernetes' API objects; its clients need not
// be errand's node.
//
// # No pause process
//
// A sandbox is no process. Its network, IPC and UTS namespaces are pinned by
// bind mounts, its /dev/shm is a mount, its cgroup a directory. Only a pod whose
// containers share a PID namespace has a process to hold that one.
//
// # Crashes
//
// A record is written before what it describes and removed after it, so that
// whatever is found without a record is an orphan of an operation that didn't
// end, and can go. Which containers run, and how those ended that don't, the
// parent process knows; New compares its list with the records, the pinned
// namespaces, the mounts and the image store's roots, and brings them together.
// After a reboot nothing runs: containers that weren't seen to exit are reported
// as exited with code 137 and the reason ContainerStatusUnknown.
//
// # Events
//
// GetContainerEvents tells of every container's creation, start, end and removal
// the moment it happens. Of a sandbox it tells only when that ends by itself:
// what a caller asked for itself it needn't be told.
package cri
