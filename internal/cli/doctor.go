package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/doctor"
	"errand.dev/errand/internal/server"
)

func newDoctor() *cobra.Command {
	o := server.DefaultOptions()
	var output, tracePod string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether errand can run here, what is wrong and what to do",
		Long: `Look at this host's kernel, cgroups, network, runtime, ports and disk, and say
what is wrong and what to do about it. What only trying tells is tried, and
leaves nothing behind. Exit code 1 means that errand serve can't run
pods here as things are.

With --trace-pod it shows where a pod's time went instead: each step on the pod's
way, from the Job's decision to its having counted the pod, when it began and how
long it took. A running errand serve remembers that of its last pods.`,
		Example: `  errand doctor
  errand doctor --trace-pod default/hello-x7k2p`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if tracePod != "" {
				return showTrace(cmd, o, tracePod, output)
			}
			programs := server.FindPrograms(o)
			found, err := doctor.Examine(cmd.Context(), doctor.Host{
				DataDir:  o.DataDir,
				Listen:   o.Listen,
				Runtimes: programs.Runtimes,
				Shim:     programs.Shim,

				ClusterDNS: o.ClusterDNS,

				RuntimeEndpoint: o.ContainerRuntimeEndpoint,
				ImageEndpoint:   o.ImageServiceEndpoint,

				PassedOver:     programs.PassedOver,
				TooOldNamed:    programs.TooOldNamed,
				OldestRuntimes: server.OldestRuntimes(),
			})
			if err != nil {
				return err
			}
			if err := printFindings(cmd.OutOrStdout(), output, found); err != nil {
				return err
			}
			if doctor.Worst(found) == doctor.Failure {
				return command.ExitCode(command.ExitError)
			}
			return nil
		},
	}
	f := cmd.Flags()
	addDataDir(cmd, &o.DataDir)
	f.StringVar(&o.Listen, "listen", o.Listen, "the API's host:port, as given to serve")
	f.BoolVar(&o.ClusterDNS, "cluster-dns", o.ClusterDNS, "whether pods' questions for names are answered here, as given to serve")
	f.StringVar(&tracePod, "trace-pod", "", "show where this pod's time went, as NAMESPACE/NAME or NAME")
	f.StringVar(&o.ContainerRuntimeEndpoint, "container-runtime-endpoint", o.ContainerRuntimeEndpoint, "the socket of a containerd or CRI-O, as given to serve")
	f.StringVar(&o.ImageServiceEndpoint, "image-service-endpoint", o.ImageServiceEndpoint, "the socket of its image service, as given to serve")
	addPrograms(f, &o)
	addOutput(cmd, &output)
	return cmd
}

// addPrograms adds the flags that name what errand serve starts, for commands
// that start or look at the same.
func addPrograms(f *pflag.FlagSet, o *server.Options) {
	f.StringToStringVar(&o.Runtimes, "runtime", nil, "OCI runtimes, as given to serve")
	f.StringVar(&o.DefaultRuntime, "default-runtime", o.DefaultRuntime, "the --runtime of pods without a RuntimeClass, as given to serve")
	f.StringVar(&o.Shim, "shim", o.Shim, "path of errand-shim, as given to serve")
}

func printFindings(w io.Writer, output string, found []doctor.Finding) error {
	if output != "" {
		return printStructured(w, output, found)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		mark := map[doctor.Status]string{doctor.OK: "ok", doctor.Warning: "WARN", doctor.Failure: "FAIL"}[f.Status]
		fmt.Fprintf(tw, "%s\t%s\t%s\n", mark, f.Check, f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(tw, "\t\t→ %s\n", f.Remedy)
		}
	}
	return tw.Flush()
}
