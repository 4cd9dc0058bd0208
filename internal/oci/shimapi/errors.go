package shimapi

// Code classifies an Error.
type Code string

// The codes. A client treats one that it doesn't know as CodeInternal.
const (
	CodeInvalid  Code = "invalid"  // the request itself is wrong
	CodeNotFound Code = "notfound" // no such container
	CodeExists   Code = "exists"   // the ID is taken by a container not yet deleted
	CodeState    Code = "state"    // the container's state doesn't allow it (exec in one that exited)
	CodeDraining Code = "draining" // the shim is about to stop and takes no new containers
	CodeStart    Code = "start"    // the container's own fault: no such command, not executable, no such working directory
	CodeRuntime  Code = "runtime"  // the OCI runtime failed
	CodeInternal Code = "internal"
)

// Error is an error on the wire.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }
