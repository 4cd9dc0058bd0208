package cli

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/server"
)

func newCRI() *cobra.Command {
	o := server.DefaultCRIOptions()
	o.DataDir = defaultDataDir()
	var verbosity int
	cmd := &cobra.Command{
		Use:   "cri",
		Short: "Serve errand's container runtime alone to CRI clients, such as crictl",
		Long: `Serve errand's container runtime, without the Kubernetes API and the node, as a
CRI v1 server on a unix socket: for crictl, critest, a kubelet or any other CRI
client. It stays in the foreground; SIGTERM or Ctrl-C ends it, while the
containers go on and are found again by the next errand cri (errand drain ends
those too).

A data directory belongs to one errand at a time: this command needs another
than a running errand serve. What it finds in the directory it serves, also
what an errand serve has left there; an errand serve ends what it finds there
and knows no Pod for.`,
		Example: `  errand cri
  crictl --runtime-endpoint unix:///run/errand/cri.sock ps

  # beside an errand serve
  errand cri --data-dir /var/lib/errand-cri --listen unix:///run/errand-cri.sock`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// As in errand serve.
			signal.Ignore(syscall.SIGPIPE)
			if err := command.StartLogging(cmd.Context(), verbosity, cmd.ErrOrStderr()); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return command.UsageError(err)
			}
			if os.Geteuid() != 0 {
				return errors.New("containers need root, for namespaces, cgroups, mounts and the pods' network: run sudo errand cri")
			}
			return server.RunCRI(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVarP(&verbosity, "v", "v", 0, "how much to log: 0 only what needs attention, 2 calls that failed, 4 all calls, up to 10")
	addCRIFlags(f, &o)
	return cmd
}

func addCRIFlags(f *pflag.FlagSet, o *server.CRIOptions) {
	f.StringVar(&o.DataDir, "data-dir", o.DataDir, "holds everything that outlives the process; $"+dataDirEnv+" changes the default")
	f.StringVar(&o.Endpoint, "listen", o.Endpoint, "the socket, as unix://PATH; only root may open it (default unix:///run/errand/cri.sock, with another --data-dir cri.sock in that one's folder below /run)")
	f.StringVar(&o.PodCIDR, "pod-cidr", o.PodCIDR, "the range of the pods' addresses (default the first of a few private ranges that the host doesn't use)")
	f.StringToStringVar(&o.Runtimes, "runtime", nil, "OCI runtimes as RUNTIME-HANDLER=PATH (default the first runc or crun that serves)")
	f.StringVar(&o.DefaultRuntime, "default-runtime", o.DefaultRuntime, "the --runtime of pods for which no runtime handler is named")
	f.BoolVar(&o.NativeLauncher, "native-launcher", o.NativeLauncher, "start ordinary containers of such pods by errand itself, not by --default-runtime")
	f.StringVar(&o.Shim, "shim", o.Shim, "path of errand-shim (default beside errand, then $PATH)")
	f.StringVar(&o.RegistriesConf, "registries-conf", o.RegistriesConf, "containers-registries.conf(5) (default its usual places)")
	f.StringVar(&o.AuthFile, "authfile", o.AuthFile, "containers-auth.json(5) (default its usual places)")
	f.StringVar(&o.SignaturePolicy, "signature-policy", o.SignaturePolicy, "containers-policy.json(5): which images may be pulled; one that wants a signature is refused (default its usual places)")
}
