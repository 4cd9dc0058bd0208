package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"errand.dev/errand/internal/command"
)

// addOutput adds -o, which turns a command's output from words for people into
// data for programs.
func addOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "json or yaml, for programs")
	completeFlag(cmd, "output", "json", "yaml")
}

// completeFlag has a shell complete a flag's value by those that it can have. The flag
// is the command's.
func completeFlag(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag, or it has been completed before
	}
}

// checkOutput refuses formats that printStructured doesn't know; the empty one
// means words for people.
func checkOutput(output string) error {
	switch output {
	case "", "json", "yaml":
		return nil
	}
	return command.UsageError(fmt.Errorf("-o %q: must be json or yaml", output))
}

// printStructured prints v in the format that checkOutput let pass.
func printStructured(w io.Writer, output string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if output == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		_, err = w.Write(b)
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}
