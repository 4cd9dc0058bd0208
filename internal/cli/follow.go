package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/joblogs"
	"errand.dev/errand/internal/jobrun"
)

// exitInterrupted is what a command exits with that Ctrl-C ended, as a shell has it.
const exitInterrupted = 130

// followsHelp tells of the end that run and rerun come to.
const followsHelp = `Exit codes:
  0    the Job is Complete
  N    it has Failed: the exit code of the container that failed last, or 1 if none is known
  1    it was deleted, or couldn't be created or followed, or its logs couldn't be written
  2    the call couldn't be understood
  130  Ctrl-C or SIGTERM: the Job was deleted with its pods; a second one leaves at once

When what reads its output leaves, as head does, it ends too, and the Job goes on.`

// following is what run and rerun do with a Job that they made.
type following struct {
	detach, remove bool
	output         string
}

func (f *following) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "only create the Job, and print its name")
	cmd.Flags().BoolVar(&f.remove, "rm", false, "delete the Job after its end")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "with --detach, how to print the Job: name, json or yaml")
	completeFlag(cmd, "output", "name", "json", "yaml")
}

func (f *following) check() error {
	switch f.output {
	case "", "name", "json", "yaml":
	default:
		return command.UsageError(fmt.Errorf("-o %q: must be name, json or yaml", f.output))
	}
	switch {
	case f.output != "" && !f.detach:
		return command.UsageError(fmt.Errorf("-o %s needs --detach: without it, stdout has the Job's logs", f.output))
	case f.detach && f.remove:
		return command.UsageError(fmt.Errorf("--rm needs somebody who waits for the Job's end, and --detach has nobody: set the Job's ttlSecondsAfterFinished instead"))
	}
	return nil
}

// follow follows a Job that has just been created, and ends as it does.
func (f *following) follow(cmd *cobra.Command, client kubernetes.Interface, job *batchv1.Job) error {
	if f.detach {
		return f.print(cmd, job)
	}
	output := newOutput(cmd)
	output.Say("job/%s created", job.Name)
	kept := func(ctx context.Context, pod types.UID, container string, restartCount int32) (io.ReadCloser, error) {
		return joblogs.OpenKept(ctx, client, job, pod, container, restartCount)
	}
	end, err := jobrun.Follow(cmd.Context(), client, output, kept, job)
	if err != nil {
		return err
	}
	output.Say("%s", end)
	if f.remove && (end.State == jobrun.Complete || end.State == jobrun.Failed) {
		if err := jobrun.Delete(detached(cmd), client, end.Job, metav1.DeletePropagationBackground); err != nil {
			return err
		}
	}
	switch failed := output.Failed(); {
	case end.State == jobrun.Complete && failed != nil:
		return fmt.Errorf("job/%s has logs that are lost here: %w: errand logs job/%s -n %s prints them again", job.Name, failed, job.Name, job.Namespace)
	case end.State == jobrun.Complete:
		return nil
	case end.State == jobrun.Interrupted:
		return command.ExitCode(exitInterrupted)
	case end.Code != 0:
		return command.ExitCode(end.Code)
	default:
		return command.ExitCode(command.ExitError)
	}
}

// print prints a Job that nobody follows.
func (f *following) print(cmd *cobra.Command, job *batchv1.Job) error {
	var printer printers.ResourcePrinter
	switch f.output {
	case "":
		_, err := fmt.Fprintln(cmd.OutOrStdout(), job.Name)
		return err
	case "name":
		printer = &printers.NamePrinter{ShortOutput: true}
	case "json":
		printer = &printers.JSONPrinter{}
	case "yaml":
		printer = &printers.YAMLPrinter{}
	}
	job.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
	return (&printers.OmitManagedFieldsPrinter{Delegate: printer}).PrintObj(job, cmd.OutOrStdout())
}

func newOutput(cmd *cobra.Command) *jobrun.Output {
	return jobrun.NewOutput(cmd.OutOrStdout(), cmd.ErrOrStderr(), "errand: ")
}

// detached is a context for what must be done though Ctrl-C was pressed.
func detached(cmd *cobra.Command) context.Context {
	return context.WithoutCancel(cmd.Context())
}
