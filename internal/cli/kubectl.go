package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"errand.dev/errand/internal/datadir"
)

func newKubectl() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl [COMMAND] [FLAGS]",
		Short: "Run kubectl against this machine's errand",
		Long: `Run kubectl, built in whole, against this machine's errand.

It takes errand's kubeconfig whatever $KUBECONFIG says, so that it never talks
to another cluster by mistake; --kubeconfig still wins. $` + dataDirEnv + ` names
the data directory of an errand other than the machine's main one.`,
		DisableFlagParsing: true,
		SilenceErrors:      true,
		ValidArgsFunction:  completeKubectl,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := useErrandsKubeconfig(args); err != nil {
				return err
			}
			// kubectl ends at the first Ctrl-C, except where it catches it itself;
			// the context that Main ends is none of its business.
			signal.Reset(syscall.SIGINT, syscall.SIGTERM)
			return runKubectl(cmd, args)
		},
	}
}

// completeKubectl lets kubectl itself complete, with what this machine's errand
// has.
func completeKubectl(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	args = append([]string{cobra.ShellCompRequestCmd}, append(args, toComplete)...)
	if err := useErrandsKubeconfig(args); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out bytes.Buffer
	command := kubectlCommand(args, genericiooptions.IOStreams{In: cmd.InOrStdin(), Out: &out, ErrOut: io.Discard})
	if err := command.ExecuteContext(cmd.Context()); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return readCompletions(out.String())
}

// readCompletions reads what cobra's hidden command prints: a line for each
// completion, then a colon and the directive.
func readCompletions(out string) ([]cobra.Completion, cobra.ShellCompDirective) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	directive, err := strconv.Atoi(strings.TrimPrefix(last, ":"))
	if err != nil || !strings.HasPrefix(last, ":") {
		return nil, cobra.ShellCompDirectiveError
	}
	return lines[:len(lines)-1], cobra.ShellCompDirective(directive)
}

// useErrandsKubeconfig points the kubectl below at errand's kubeconfig. It
// complains only where kubectl would otherwise fall back in silence to a
// cluster at localhost:8080.
func useErrandsKubeconfig(args []string) error {
	path := filepath.Join(defaultDataDir(), "kubeconfig")
	if err := os.Setenv("KUBECONFIG", path); err != nil {
		return fmt.Errorf("set KUBECONFIG: %w", err)
	}
	if ownKubeconfig(args) || !talksToCluster(args) {
		return nil
	}
	err := checkOwnKubeconfig(defaultDataDir())
	if absent := (*datadir.AbsentError)(nil); errors.As(err, &absent) {
		// All flags are kubectl's, which knows no --data-dir.
		return fmt.Errorf("there is no errand at %s: start one with errand serve, or name another's data directory by $%s", absent.Path, dataDirEnv)
	}
	return err
}

func ownKubeconfig(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if a == "--kubeconfig" || strings.HasPrefix(a, "--kubeconfig=") {
			return true
		}
	}
	return false
}

// talksToCluster says whether a call of kubectl needs an API server: all but
// help, completion and the like do.
func talksToCluster(args []string) bool {
	for _, a := range args {
		switch a {
		case "--help", "-h":
			return false
		}
	}
	if len(args) == 0 {
		return false
	}
	switch args[0] {
	case "version":
		return !slices.ContainsFunc(args, func(a string) bool { return a == "--client" || a == "--client=true" })
	case "help", "completion", "options", "plugin", "kustomize", "kuberc", "config", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return false
	}
	return true
}

func runKubectl(cmd *cobra.Command, args []string) error {
	argv := append([]string{"kubectl"}, args...)
	if _, err := logs.GlogSetter(kubectl.GetLogVerbosity(argv)); err != nil {
		return fmt.Errorf("set kubectl's log level: %w", err)
	}
	streams := genericiooptions.IOStreams{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), ErrOut: cmd.ErrOrStderr()}
	if err := cli.RunNoErrOutput(kubectlCommand(args, streams)); err != nil {
		// kubectl's own words and exit codes, which scripts rely on.
		kubectlutil.CheckErr(err)
	}
	return nil
}

// kubectlCommand is kubectl as upstream's main makes it.
func kubectlCommand(args []string, streams genericiooptions.IOStreams) *cobra.Command {
	command := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{"kubectl"}, args...),
		ConfigFlags:   genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50.0).WithWarningPrinter(streams),
		IOStreams:     streams,
	})
	command.SetArgs(args)
	command.SetIn(streams.In)
	command.SetOut(streams.Out)
	command.SetErr(streams.ErrOut)
	return command
}
