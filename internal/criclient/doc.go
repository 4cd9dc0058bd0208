// Package criclient makes of another program's container runtime, behind its
// CRI socket, one that errand's node can rely on as it does on the embedded
// one: containerd 2 and CRI-O are meant.
//
// It owns the connection, which may be lost and found again at any time; the
// events, which it makes up for by listing where the runtime tells of none; the
// label by which errand's pods are told from those of others who use the same
// runtime, whom it never sees; and the pods' cgroups with their limits, which
// plain CRI leaves to whoever calls it. It doesn't own the runtime, its images,
// its network or its logs' rotation (package internal/node/logrotation).
//
// While the runtime is away, or can't be used, every call returns an error of
// code Unavailable that says why. Waiting for events waits for the runtime.
package criclient
