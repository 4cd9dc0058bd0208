// Command errand-controller is errand controller alone: a third of the program,
// and less than a third of the memory. It is what runs in a cluster's pod.
package main

import (
	"os"

	"errand.dev/errand/internal/cli/controller"
)

func main() {
	os.Exit(controller.Main("errand-controller", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
