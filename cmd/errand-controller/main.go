// Command errand-controller is errand controller alone: a third of the program,
// and less than a third of the memory. It is what runs in a cluster's pod.
package main

import (
	"os"
	"runtime/debug"

	"errand.dev/errand/internal/cli/controller"
)

// gcPercent is how much garbage there may be before it is collected, in percent
// of what is in use, unless $GOGC says so. That is so little here that with the
// usual 100 a sixth of the CPU time went into collecting.
const gcPercent = 200

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(controller.Main("errand-controller", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
