// Package command is what the command lines of errand's programs have in
// common: signals, exit codes, complaints about how they were called, and the
// log. It knows no command.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/version"
)

// Exit codes of Main.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
)

// echo is how long after a signal another one is still taken for the same: timeout(1)
// sends its signal to the process, and then once more to the process's group.
const echo = 250 * time.Millisecond

// Main runs a program by its root command and returns the process's exit code:
// 0 for success, 1 for a failure, 2 for a call that could not be understood. The
// first SIGINT or SIGTERM ends the command's context; a second one, unless it is the
// first one's echo, ends the process at once.
func Main(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(echo, stop) })

	addVersion(root)
	root.SilenceErrors, root.SilenceUsage, root.DisableAutoGenTag = true, true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// With a command that isn't there come flags that aren't there.
		if given := cmd.Flags().Args(); cmd.HasSubCommands() && len(given) > 0 {
			return cmd.ValidateArgs(given)
		}
		return UsageError(fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
	})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	refuseUnknownTopics(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var exit *exitCodeError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	var usage *usageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitError
}

// addVersion adds --version. Cobra's own takes a template to print nothing but
// the version, and with text/template, which finds methods by their names, the
// linker keeps all methods of Kubernetes' clients: 27 MB of program.
func addVersion(root *cobra.Command) {
	show := root.Flags().Bool("version", false, "print which version this is")
	run := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *show {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Get())
			return err
		}
		return run(cmd, args)
	}
}

// refuseUnknownTopics has cobra's own commands refuse what isn't there as others do, rather
// than show the program's help as a success.
func refuseUnknownTopics(root *cobra.Command) {
	if !root.HasSubCommands() {
		return
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				// A command without others below it may have its own way with its arguments.
				if about, rest, err := root.Find(args); err == nil && about.HasSubCommands() {
					return about.ValidateArgs(rest)
				}
				return nil
			}
		case "completion":
			cmd.Args, cmd.RunE = Subcommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// UsageError says that the call itself was wrong: the exit code is ExitUsage.
func UsageError(err error) error { return &usageError{err} }

type exitCodeError struct{ code int }

func (e *exitCodeError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// ExitCode ends the process with a code of its own; what there was to say has
// been said.
func ExitCode(code int) error { return &exitCodeError{code} }

// Subcommand refuses arguments of a command that only has commands below it,
// and says which of those was most likely meant.
func Subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return UsageError(fmt.Errorf("%s has no command %q: did you mean %s %s?", cmd.CommandPath(), args[0], cmd.CommandPath(), like[0]))
	}
	return UsageError(fmt.Errorf("%s has no command %q (see %s --help)", cmd.CommandPath(), args[0], cmd.CommandPath()))
}

// NoArgs refuses arguments in words that name them.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return UsageError(fmt.Errorf("%s takes no arguments, but was given %q", cmd.CommandPath(), args))
	}
	return nil
}
