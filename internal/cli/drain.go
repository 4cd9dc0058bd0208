package cli

import (
	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/server"
)

func newDrain() *cobra.Command {
	o := server.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "End all containers and take errand's traces off the host",
		Long: `End the containers that a stopped errand serve left running, as it does on
purpose, and take off the host what isn't in the data directory: the shim, the
pods' network, mounts, cgroups and sockets. The objects stay: the next errand
serve reports those pods as disrupted (condition DisruptionTarget), and their
Jobs replace them. It works also where the data directory has been deleted:
name where it was.`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return server.Drain(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDataDir(cmd, &o.DataDir)
	addPrograms(cmd.Flags(), &o)
	return cmd
}
