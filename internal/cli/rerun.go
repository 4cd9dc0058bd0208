package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/jobrun"
)

func newRerun() *cobra.Command {
	var (
		at  cluster
		f   following
		how jobrun.How
	)
	cmd := &cobra.Command{
		Use:   "rerun job/NAME [FLAGS]",
		Short: "Run a Job again, as errand run does",
		Long: `Create a Job anew from what another one was created from, and follow it as errand run does.

The new one is NAME-2, or the next number that is free. It belongs to no CronJob, and
isn't suspended. Its spec is the old one's, as it stands now.

` + followsHelp,
		Example: `  errand rerun job/build            # as job/build-2
  errand rerun job/build --replace  # in its place`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return command.UsageError(fmt.Errorf("errand rerun takes one Job, as job/NAME, but was given %q", args))
			}
			return nil
		},
		ValidArgsFunction:     at.completeJobs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := jobNames(cmd, args)
			if err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			if how.Replace && how.Name != "" {
				return command.UsageError(errors.New("--replace keeps the Job's name, and --name gives another: take one of them"))
			}
			client, err := at.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			job, err := jobrun.Rerun(cmd.Context(), client, newOutput(cmd), at.namespace, names[0], how)
			if err != nil {
				return at.explain(err)
			}
			return f.follow(cmd, client, job)
		},
	}
	cmd.Flags().StringVar(&how.Name, "name", "", "the new Job's name")
	cmd.Flags().BoolVar(&how.Replace, "replace", false, "delete the old Job with its pods first, and keep its name")
	f.addFlags(cmd)
	at.addFlags(cmd)
	return cmd
}
