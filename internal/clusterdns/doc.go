// Package clusterdns answers pods' questions for names: those of Services and
// pods below cluster.local from what the API says, all others from the host's
// own resolvers.
//
// Names follow the Kubernetes DNS-Based Service Discovery specification, version
// 1.1.0. They are made from Services and Pods themselves, without EndpointSlices
// in between: a Job's pods have their names the moment that they are ready, and
// nothing is written to the store for it. Where the specification speaks of a
// Service's cluster IP, its pods' addresses stand, because nothing routes cluster
// IPs here; records of the form 10-57-0-2.default.pod.cluster.local are answered
// for pods that exist only.
//
// The package owns the index of names, the answers, the forwarding and the
// sockets at port 53 of the bridge's address. What stands in pods' resolv.conf is
// the node's (internal/node/crispec); that packets reach the sockets through the
// host's firewall, internal/cri/network's.
package clusterdns

// Domain is the suffix of all names that are answered here, without the root's
// dot. It is what Kubernetes' clusters have unless told otherwise.
const Domain = "cluster.local"

// Port is where the names are served, by UDP and by TCP.
const Port = 53
