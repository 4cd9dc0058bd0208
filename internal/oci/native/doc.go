// Package native translates an OCI specification for the launcher that is in errand-shim (package launch), and makes the
// cgroup of a container that it is to start.
//
// It is the half of an OCI runtime that is better done in errand: reading specifications, looking up names, compiling
// seccomp filters, setting limits. The other half are the system calls. What the launcher can't do, or can't do as safely as
// an OCI runtime in a process of its own, gives an *Unsupported that says what it is; such a container is then for a runtime.
package native

import "fmt"

// Unsupported says what of a specification the launcher doesn't take.
type Unsupported struct {
	// What it is, by the specification's name for it.
	What string
}

func (e *Unsupported) Error() string { return e.What + " isn't taken by errand's own launcher" }

func unsupported(format string, args ...any) error {
	return &Unsupported{What: fmt.Sprintf(format, args...)}
}
