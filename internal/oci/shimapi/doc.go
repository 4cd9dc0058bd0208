// Package shimapi is the protocol between errand and errand-shim, the resident parent of all containers.
//
// It owns the framing, the passing of file descriptors, the version handshake and the messages. It doesn't know how a
// container is started (package shim) or what errand wants of one (package oci). It imports the standard library only,
// because both a large and a tiny program speak it.
//
// # Transport
//
// A unix stream socket, mode 0600, in the instance's runtime directory. The shim serves only peers of its own user or
// root (SO_PEERCRED). A connection carries one call; calls in flight at the same time use one connection each. Setting
// one up takes some 50 µs, and in exchange no call can hold up, or be lost in, another one.
//
// # Frames
//
//	+----------------+---------------------------+
//	| length, uint32 | payload: one JSON object  |
//	| big endian     | 1 ≤ length ≤ MaxFrame     |
//	+----------------+---------------------------+
//
// File descriptors travel as SCM_RIGHTS with the frame's first byte; at most MaxFDs with a frame. Each message
// documents which descriptors it takes and in which order. A receiver closes those that it doesn't expect.
//
// # A call
//
//	client                                       shim
//	  Hello{min,max}, Request{op, body} ────────▶
//	                                    ◀──────── Hello{version, min, max, instance, pid}
//	                                    ◀──────── Response{error | body}   (+ descriptors)
//	                                    ◀──────── Response …               (events, exec and attach only)
//
// The client needn't wait for the Hello before it sends the Request. Hanging up ends a call of several responses; it
// undoes nothing: a Run whose caller has gone goes on, so that a container is never lost between two lives of errand.
//
// # Versions
//
// The shim outlives an upgrade of errand, so the newer side is always the client, and it is the client that must speak
// an older version for as long as it accepts that version in its Hello. Within a version only fields may be added,
// whose zero value means what their absence meant before; both sides ignore fields they don't know. Whatever changes the meaning
// of a message gets a new version. If the ranges don't meet, the shim answers with a Hello of version 0 and hangs up;
// the client says so, and that draining the shim solves it.
//
// # Exits
//
// The shim writes a container's exit to disk before it announces it, and keeps it until the container is deleted: Delete
// is the acknowledgement. Every exit has a number (Seq), growing within one life (Instance) of the shim. OpEvents with
// After = 0 replays all exits not yet deleted and then goes on with new ones, each once and in order of Seq; with After =
// the last Seq received it goes on where a broken connection ended.
package shimapi
