package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/version"
)

func newVersion() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which errand this is and which Kubernetes API it serves",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			info := version.Get()
			if output != "" {
				return printStructured(cmd.OutOrStdout(), output, info)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), info)
			return err
		},
	}
	addOutput(cmd, &output)
	return cmd
}
