// Package inprocess is a client-go clientset that calls the API server's registries directly, for the components that live in the API
// server's own process.
//
// A request through it passes everything that makes it correct, in the order in which the HTTP path applies it: the object is put into
// wire form, defaulted and converted to the internal version, shown to mutating admission, taken through the registry's strategy with
// validating admission, stored, and given back as v1. What it leaves out is what only a remote caller needs: HTTP, TLS, JSON, authentication,
// authorization, audit, priority and fairness, and the recording of field ownership (an object's managedFields stay exactly as they were).
//
// The package owns the hot resources (pods, jobs, nodes, leases, events, and the small objects that pods read) and their common verbs. It
// doesn't own their semantics, which are the registries', nor anything else of kubernetes.Interface: discovery, server-side apply, logs, every
// other resource, and any call that the typed client would refuse or the server would answer with a routing error go to the Fallback clientset,
// a loopback client of the same server. Callers can't tell the two apart but by speed.
//
// # Who owns what
//
// An object passed in is only read, and not after the call returns. An object handed out belongs to the caller alone and may be changed freely:
//   - the result of a write was decoded from storage for this call, so its memory is taken over without another copy;
//   - the results of get and list and the events of a watch may belong to the watch cache and to other watchers, so they are copied once, as
//     internal objects, before the (memory-sharing) conversion to v1.
//
// # Where it differs from HTTP
//
// A write that is underway when its context ends is waited for, and the call may then succeed; HTTP would give up at once and leave the
// outcome open. A watch whose context ends closes its channel; HTTP may send one more Error event about the broken stream. A watch without
// TimeoutSeconds lives until it is stopped; HTTP ends it after half an hour to an hour. A handler's panic is an error; over HTTP it resets the
// stream. A server-side apply to an object that was written here alone finds its fields owned by "before-first-apply", as it does with any
// object without a record of ownership.
package inprocess
