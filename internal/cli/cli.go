// Package cli is errand's command line: one file per command. A command reads
// flags, calls the package that does the work, and prints; it does no work of
// its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/version"
)

// dataDirEnv changes the default of every command's --data-dir.
const dataDirEnv = "ERRAND_DATA_DIR"

// Exit codes of Main.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Main runs the command line and returns the process's exit code: 0 for
// success, 1 for a failure, 2 for a call that could not be understood. The
// first SIGINT or SIGTERM ends the command's context; a second one ends the
// process at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var exit *exitCodeError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(stderr, "errand: %v\n", err)
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// usageError says that the call itself was wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitCodeError ends the process with a code of its own; what there was to say
// has been said.
type exitCodeError struct{ code int }

func (e *exitCodeError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "errand",
		Short: "Kubernetes Jobs on one machine, with no cluster",
		Long: `errand runs Kubernetes Jobs on one machine, with no cluster.

  errand serve                      start the API, the Job engine and the node
  errand kubectl apply -f job.yaml  talk to it; any kubectl will do

The manual is the repository's README.md and docs/, which make install puts into
share/doc/errand beside the program's bin.`,
		Version:           version.Get().String(),
		Args:              subcommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newServe(),
		newController(),
		newDrain(),
		newKubectl(),
		newKubeconfig(),
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

// subcommand refuses arguments of a command that only has commands below it,
// and says which of those was most likely meant.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return &usageError{fmt.Errorf("%s has no command %q: did you mean %s %s?", cmd.CommandPath(), args[0], cmd.CommandPath(), like[0])}
	}
	return &usageError{fmt.Errorf("%s has no command %q (see %s --help)", cmd.CommandPath(), args[0], cmd.CommandPath())}
}

// noArgs refuses arguments in words that name them.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("%s takes no arguments, but was given %q", cmd.CommandPath(), args)}
	}
	return nil
}
