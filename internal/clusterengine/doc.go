// Package clusterengine runs the Job engine, internal/jobs, against any
// Kubernetes cluster: it is what errand controller is made of. It owns how the
// cluster is reached, who of several replicas may act (the lease, and the fence
// that holds back who has lost it), what is cached, and what the process tells
// of itself over HTTP. Of Jobs it knows nothing but their fields' sizes.
package clusterengine
