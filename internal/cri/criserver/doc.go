// Package criserver serves a container runtime's Go interfaces (those of
// k8s.io/cri-api) as a CRI v1 gRPC server on a unix socket, for clients that
// aren't in this process: a kubelet, crictl, critest.
//
// It owns the socket and the translation, and nothing of the runtime's: what a
// request means, and what is wrong with it, the runtime says. The URLs that
// Exec, Attach and PortForward answer with are the runtime's, too.
package criserver
