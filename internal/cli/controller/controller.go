// Package controller is the command errand controller, and the program
// errand-controller, which is that command alone.
package controller

import (
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"errand.dev/errand/internal/clusterengine"
	"errand.dev/errand/internal/command"
)

// Main runs the command as a program of its own, called name, and returns the
// process's exit code.
func Main(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := New()
	root.Use, root.Example = name, strings.ReplaceAll(root.Example, "errand controller", name)
	root.CompletionOptions.DisableDefaultCmd = true
	return command.Main(root, args, stdin, stdout, stderr)
}

// New makes the command.
func New() *cobra.Command {
	o := clusterengine.DefaultOptions()
	var verbosity int
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the Jobs of any Kubernetes cluster",
		Long: `Run the Jobs of a Kubernetes cluster: the Job engine of errand serve, with that
cluster's API, scheduler and nodes. It runs the Jobs whose spec.managedBy names
it, and leaves all others to the cluster's own controller. Of several replicas
one acts, and the others wait for it to end.`,
		Example: `  # in a pod: kubectl apply -k deploy/controller
  errand controller

  # from outside
  errand controller --kubeconfig ~/.kube/config --context staging

  # all Jobs, where kube-controller-manager runs with --controllers=*,-job-controller
  errand controller --managed-by kubernetes.io/job-controller`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGPIPE) // as errand serve does
			if err := command.StartLogging(cmd.Context(), verbosity, cmd.ErrOrStderr()); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return command.UsageError(err)
			}
			cfg, err := o.Complete()
			if err != nil {
				return err
			}
			return cfg.Run(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVarP(&verbosity, "v", "v", 0, "how much to log: 0 only what needs attention, 2 the course of things, 4 details, up to 10")
	addControllerFlags(f, &o)
	return cmd
}

func addControllerFlags(f *pflag.FlagSet, o *clusterengine.Options) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "how to reach the cluster (default the one in which this is a pod)")
	f.StringVar(&o.Context, "context", o.Context, "the kubeconfig's context (default its current one)")
	f.StringVar(&o.Namespace, "namespace", o.Namespace, "the only namespace whose Jobs to run (default all)")
	f.StringVar(&o.ManagedBy, "managed-by", o.ManagedBy, "the spec.managedBy of the Jobs to run; kubernetes.io/job-controller takes those without one, too")
	f.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "have a lease decide which of several replicas acts; with false, there must be one only")
	f.StringVar(&o.Lease.Namespace, "leader-elect-resource-namespace", o.Lease.Namespace, "the lease's namespace (default this pod's, outside of a cluster kube-system)")
	f.StringVar(&o.Lease.Name, "leader-elect-resource-name", o.Lease.Name, "the lease's name (default one that tells --managed-by and --namespace)")
	f.DurationVar(&o.Lease.Duration, "leader-elect-lease-duration", o.Lease.Duration, "how long others wait after the last renewal before one takes over; whole seconds")
	f.DurationVar(&o.Lease.RenewDeadline, "leader-elect-renew-deadline", o.Lease.RenewDeadline, "how long after the last renewal the leader acts")
	f.DurationVar(&o.Lease.RetryPeriod, "leader-elect-retry-period", o.Lease.RetryPeriod, "how often the lease is renewed, and asked for")
	f.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "host:port of /metrics, /healthz and /readyz; 0 for none")
	f.BoolVar(&o.Profiling, "profiling", o.Profiling, "serve /debug/pprof, too, at --metrics-bind-address")
	f.IntVar(&o.Workers, "workers", o.Workers, "how many Jobs are synced at a time")
	f.Float32Var(&o.QPS, "kube-api-qps", o.QPS, "the most requests a second (default no limit: the API server's priority and fairness paces)")
	f.IntVar(&o.Burst, "kube-api-burst", o.Burst, "the most requests at once, with --kube-api-qps (default twice that)")
	f.DurationVar(&o.PodFailureBackoff, "pod-failure-backoff", o.PodFailureBackoff, "delay after a Job's first failed pod, doubled with each further one")
	f.DurationVar(&o.MaxPodFailureBackoff, "max-pod-failure-backoff", o.MaxPodFailureBackoff, "the longest such delay")
}
