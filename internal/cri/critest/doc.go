// Package critest is the contract of a CRI runtime as errand's node relies on
// it: a suite that runs against any RuntimeService, the embedded one or a real
// containerd behind the CRI's client. It needs root and real containers, and so
// is built with the tag "node" only.
//
// It tests what a pod's user would see. What is particular to one runtime (its
// crashes, its files) is tested beside that.
package critest
