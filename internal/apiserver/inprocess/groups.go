package inprocess

import (
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	eventsv1 "k8s.io/api/events/v1"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	typedeventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
)

// A resource's client embeds the generic client, and one level deeper the remote one: the methods that both have are thereby the generic
// client's, and those that only the remote one has (apply, logs ...) are its own.

// batchV1 serves jobs.
type batchV1 struct {
	typedbatchv1.BatchV1Interface
	jobs *resource[*batchv1.Job, *batchv1.JobList]
}

func newBatchV1(b *backend, remote typedbatchv1.BatchV1Interface) (*batchV1, error) {
	jobs, err := newResource(b, batchv1.SchemeGroupVersion.WithResource("jobs"),
		func() *batchv1.Job { return new(batchv1.Job) }, func() *batchv1.JobList { return new(batchv1.JobList) }, "status")
	return &batchV1{BatchV1Interface: remote, jobs: jobs}, err
}

type jobs struct {
	*client[*batchv1.Job, *batchv1.JobList]
	remoteJobs
}

type remoteJobs struct{ typedbatchv1.JobInterface }

func (g *batchV1) Jobs(namespace string) typedbatchv1.JobInterface {
	remote := g.BatchV1Interface.Jobs(namespace)
	return &jobs{newClient(g.jobs, namespace, remote), remoteJobs{remote}}
}

// coordinationV1 serves leases.
type coordinationV1 struct {
	typedcoordinationv1.CoordinationV1Interface
	leases *resource[*coordinationv1.Lease, *coordinationv1.LeaseList]
}

func newCoordinationV1(b *backend, remote typedcoordinationv1.CoordinationV1Interface) (*coordinationV1, error) {
	leases, err := newResource(b, coordinationv1.SchemeGroupVersion.WithResource("leases"),
		func() *coordinationv1.Lease { return new(coordinationv1.Lease) }, func() *coordinationv1.LeaseList { return new(coordinationv1.LeaseList) })
	return &coordinationV1{CoordinationV1Interface: remote, leases: leases}, err
}

type leases struct {
	*client[*coordinationv1.Lease, *coordinationv1.LeaseList]
	remoteLeases
}

type remoteLeases struct {
	typedcoordinationv1.LeaseInterface
}

func (g *coordinationV1) Leases(namespace string) typedcoordinationv1.LeaseInterface {
	remote := g.CoordinationV1Interface.Leases(namespace)
	return &leases{newClient(g.leases, namespace, remote), remoteLeases{remote}}
}

// eventsV1 serves events under their newer API group.
type eventsV1 struct {
	typedeventsv1.EventsV1Interface
	events *resource[*eventsv1.Event, *eventsv1.EventList]
}

func newEventsV1(b *backend, remote typedeventsv1.EventsV1Interface) (*eventsV1, error) {
	events, err := newResource(b, eventsv1.SchemeGroupVersion.WithResource("events"),
		func() *eventsv1.Event { return new(eventsv1.Event) }, func() *eventsv1.EventList { return new(eventsv1.EventList) })
	return &eventsV1{EventsV1Interface: remote, events: events}, err
}

type groupedEvents struct {
	*client[*eventsv1.Event, *eventsv1.EventList]
	remoteGroupedEvents
}

type remoteGroupedEvents struct{ typedeventsv1.EventInterface }

func (g *eventsV1) Events(namespace string) typedeventsv1.EventInterface {
	remote := g.EventsV1Interface.Events(namespace)
	return &groupedEvents{newClient(g.events, namespace, remote), remoteGroupedEvents{remote}}
}
