// Package cli is errand's command line: one file per command. A command reads
// flags, calls the package that does the work, and prints; it does no work of
// its own.
package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/cli/controller"
	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
)

// dataDirEnv changes the default of every command's --data-dir.
const dataDirEnv = datadir.Env

// Main runs the command line and returns the process's exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return command.Main(newRoot(), args, stdin, stdout, stderr)
}

// kubectlsVerbs are commands that whoever knows kubectl may look for here.
var kubectlsVerbs = []string{"apply", "attach", "cordon", "cp", "create", "delete", "describe", "edit", "events", "exec", "explain", "get", "patch", "port-forward", "replace", "scale", "top", "uncordon"}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "errand",
		Short: "Kubernetes Jobs on one machine, with no cluster",
		Long: `errand runs Kubernetes Jobs on one machine, with no cluster.

  errand serve                      start the API, the Job engine and the node
  errand run -f job.yaml            run a Job, show its logs, exit with its result
  errand kubectl apply -f job.yaml  or talk to it; any kubectl will do

The manual is the repository's README.md and docs/, which make install puts into
share/doc/errand beside the program's bin.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && slices.Contains(kubectlsVerbs, args[0]) {
				return command.UsageError(fmt.Errorf("errand has no command %q: did you mean errand kubectl %s?", args[0], args[0]))
			}
			return command.Subcommand(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(
		newServe(),
		newRun(),
		newRerun(),
		newWait(),
		controller.New(),
		newCRI(),
		newDrain(),
		newKubectl(),
		newKubeconfig(),
		newLogs(),
		newImage(),
		newDoctor(),
		newVersion(),
	)
	return root
}

// defaultDataDir is the data directory where no flag says otherwise.
func defaultDataDir() string {
	if dir := os.Getenv(dataDirEnv); dir != "" {
		return dir
	}
	return instance.DefaultDataDir
}

// addDataDir adds the flag that says which errand a command is about.
func addDataDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data-dir", defaultDataDir(), "errand's data directory; $"+dataDirEnv+" changes the default")
}
