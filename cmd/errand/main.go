// Command errand runs Kubernetes Jobs on one machine, with no cluster.
package main

import (
	"os"

	"errand.dev/errand/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
