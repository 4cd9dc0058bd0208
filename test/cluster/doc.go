// Package cluster runs the control plane of a real cluster for tests and measurements, and nothing else: etcd, kube-apiserver and
// kube-controller-manager as upstream makes them, with certificates and RBAC, on loopback, and `errand controller` beside them with
// the rights of deploy/controller. It has no node: a Player ends the pods.
//
// What it starts are its caller's children; they end with Stop, or with the caller, whatever ends that.
package cluster
