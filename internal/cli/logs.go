package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/joblogs"
)

// logsOptions are what errand logs was asked for.
type logsOptions struct {
	at                 cluster
	container          string
	failed, timestamps bool
	output             string
}

func newLogs() *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs job/NAME",
		Short: "Print all logs of a Job, also those of its pods that are gone",
		Long: `Print all logs of a Job, in the order in which its containers started: of the
pods that are there, and of what Kubernetes would have removed: pods that were
deleted, because the Job failed, was suspended or went, and earlier attempts of
containers that were restarted.

Each log has a heading, on the error output. Of a pod that is there and of which
a log was rotated, the newest file is shown, as kubectl logs does.

Logs that are kept go an hour after their Job, or earlier, the oldest first,
where they would take more than errand serve's --kept-logs-max-size. They are
read through the API, which takes the right to get nodes/proxy.`,
		Example: `  errand logs job/train
  errand logs job/train --failed -o json`,
		Args:              oneJob,
		ValidArgsFunction: o.at.completeJobs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(o.output); err != nil {
				return err
			}
			names, err := jobNames(cmd, args)
			if err != nil {
				return err
			}
			return o.run(cmd, names[0])
		},
	}
	f := cmd.Flags()
	o.at.addFlags(cmd)
	f.StringVarP(&o.container, "container", "c", "", "only this container's logs")
	f.BoolVar(&o.failed, "failed", false, "only the logs of what failed")
	f.BoolVar(&o.timestamps, "timestamps", false, "begin each line with its time")
	addOutput(cmd, &o.output)
	return cmd
}

func oneJob(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return command.UsageError(errors.New("errand logs takes one Job, as job/NAME"))
	}
	return nil
}

func (o *logsOptions) run(cmd *cobra.Command, name string) error {
	client, err := o.at.connect(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	job, err := joblogs.Find(cmd.Context(), client, o.at.namespace, name)
	if err != nil {
		return o.at.explain(err)
	}
	if job.Forbidden != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "errand: logs of pods that are gone are left out, since reading them takes the right to list nodes and to get nodes/proxy: %v\n", job.Forbidden)
	}
	attempts := slices.DeleteFunc(job.Attempts, func(a joblogs.Attempt) bool {
		return o.container != "" && a.Container != o.container || o.failed && !a.Failed()
	})
	print := o.printText
	if o.output != "" {
		print = o.printData
	}
	err = print(cmd, name, job, attempts)
	if job.Unanswered != nil {
		err = errors.Join(err, fmt.Errorf("logs of pods that are gone may be left out: %w", job.Unanswered))
	}
	return err
}

// printText prints the logs to the output, each below a heading on the error output.
// What can't be read doesn't keep the rest from being printed.
func (o *logsOptions) printText(cmd *cobra.Command, name string, job *joblogs.Job, attempts []joblogs.Attempt) error {
	if len(attempts) == 0 {
		such := ""
		if o.container != "" || o.failed {
			such = "such "
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "errand: there are no %slogs of job/%s\n", such, name)
	}
	var errs []error
	for i := range attempts {
		a := &attempts[i]
		fmt.Fprintf(cmd.ErrOrStderr(), "==> %s\n", heading(a))
		if err := copyLog(cmd.Context(), cmd.OutOrStdout(), job, a, o.timestamps); err != nil {
			errs = append(errs, fmt.Errorf("log of %s: %w", heading(a), err))
		}
	}
	return errors.Join(errs...)
}

func copyLog(ctx context.Context, to io.Writer, job *joblogs.Job, a *joblogs.Attempt, timestamps bool) error {
	log, err := job.Open(ctx, a, timestamps)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, log)
	return errors.Join(err, log.Close())
}

// attemptWithLog is a run and what it said.
type attemptWithLog struct {
	joblogs.Attempt
	Log string `json:"log"`
}

func (o *logsOptions) printData(cmd *cobra.Command, name string, job *joblogs.Job, attempts []joblogs.Attempt) error {
	out := struct {
		Namespace string           `json:"namespace"`
		Job       string           `json:"job"`
		Attempts  []attemptWithLog `json:"attempts"`
	}{o.at.namespace, name, []attemptWithLog{}}
	var errs []error
	for i := range attempts {
		var log strings.Builder
		if err := copyLog(cmd.Context(), &log, job, &attempts[i], o.timestamps); err != nil {
			errs = append(errs, fmt.Errorf("log of %s: %w", heading(&attempts[i]), err))
			continue
		}
		out.Attempts = append(out.Attempts, attemptWithLog{attempts[i], log.String()})
	}
	return errors.Join(append(errs, printStructured(cmd.OutOrStdout(), o.output, out))...)
}

// heading is a run in words.
func heading(a *joblogs.Attempt) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %s, container %s, attempt %d: ", a.Pod, a.Container, a.RestartCount+1)
	switch {
	case a.Running:
		b.WriteString("running")
	case a.ExitCode == nil:
		b.WriteString("nobody saw its end")
	default:
		fmt.Fprintf(&b, "exit code %d", *a.ExitCode)
	}
	if a.Reason != "" {
		fmt.Fprintf(&b, " (%s)", a.Reason)
	}
	switch {
	case a.StartedAt.IsZero():
	case a.FinishedAt.IsZero():
		fmt.Fprintf(&b, ", since %s", a.StartedAt.Local().Format(time.DateTime))
	default:
		fmt.Fprintf(&b, ", %s to %s", a.StartedAt.Local().Format(time.DateTime), a.FinishedAt.Local().Format(time.DateTime))
	}
	if a.PodGone {
		b.WriteString("; the pod is gone")
	}
	return b.String()
}
