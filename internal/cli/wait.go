package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/jobrun"
)

// exitTimeout is what errand wait exits with when there was no end to wait for, as
// timeout(1) does.
const exitTimeout = 124

func newWait() *cobra.Command {
	var (
		at      cluster
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait job/NAME… [FLAGS]",
		Short: "Wait until Jobs have ended, well or badly, and exit with their result",
		Long: `Wait until all of the Jobs have ended, Complete or Failed, and say of each how.

Exit codes:
  0    all are Complete
  1    one has Failed, or doesn't exist
  2    the call couldn't be understood
  124  there is no end to wait for: --timeout has passed, or one was deleted
  130  Ctrl-C or SIGTERM; the Jobs go on`,
		Example: `  errand wait job/build job/test --timeout 10m && echo well done`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.UsageError(errors.New("errand wait needs a Job, as job/NAME"))
			}
			return nil
		},
		ValidArgsFunction:     at.completeJobs(0),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := jobNames(cmd, args)
			if err != nil {
				return err
			}
			if timeout < 0 {
				return command.UsageError(fmt.Errorf("--timeout %s: must not be negative", timeout))
			}
			client, err := at.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			failed, deleted := false, false
			err = jobrun.Wait(ctx, client, newOutput(cmd), at.namespace, names, func(end jobrun.End) {
				failed = failed || end.State == jobrun.Failed
				deleted = deleted || end.State == jobrun.Deleted
				to := cmd.OutOrStdout()
				if end.State == jobrun.Deleted || end.State == jobrun.Unfinished {
					to = cmd.ErrOrStderr()
				}
				fmt.Fprintln(to, end)
			})
			switch {
			case cmd.Context().Err() != nil:
				return command.ExitCode(exitInterrupted)
			case ctx.Err() != nil && err != nil:
				fmt.Fprintf(cmd.ErrOrStderr(), "errand: waited for %s\n", timeout)
				return command.ExitCode(exitTimeout)
			case err != nil:
				return at.explain(err)
			case failed:
				return command.ExitCode(command.ExitError)
			case deleted:
				return command.ExitCode(exitTimeout)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait, such as 5m; 0 for ever")
	at.addFlags(cmd)
	return cmd
}
