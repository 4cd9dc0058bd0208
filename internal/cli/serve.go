package cli

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/server"
)

func newServe() *cobra.Command {
	o := server.DefaultOptions()
	o.DataDir = defaultDataDir()
	var (
		config    string
		verbosity int
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the Kubernetes API, run Jobs and their pods",
		Long: `Serve the Kubernetes API on this machine, run Jobs, and run their pods as
containers. It stays in the foreground; SIGTERM or Ctrl-C ends it, while the
containers go on and are found again by the next errand serve (errand drain
ends those too).`,
		Example: `  errand serve
  errand kubectl apply -f examples/job-echo.yaml

  # the API and the Job engine alone, for a node of your own
  errand serve --node=false`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Whoever reads the log may go, as in errand serve 2>&1 | head;
			// that is no reason to stop serving.
			signal.Ignore(syscall.SIGPIPE)
			if err := command.StartLogging(cmd.Context(), verbosity, cmd.ErrOrStderr()); err != nil {
				return err
			}
			if err := readConfig(cmd.Flags(), &o, config); err != nil {
				return command.UsageError(err)
			}
			if err := o.Validate(); err != nil {
				return command.UsageError(err)
			}
			if o.Node && os.Geteuid() != 0 {
				return fmt.Errorf("running pods needs root, for namespaces, cgroups, mounts and the pods' network: run sudo errand serve, or errand serve --node=false --data-dir ~/.errand for the API and the Job engine alone")
			}
			return server.Run(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "a YAML file of these settings (fields as flags, in camelCase); flags win over it")
	f.IntVarP(&verbosity, "v", "v", 0, "how much to log: 0 only what needs attention, 2 the course of things, 4 details, up to 10")
	addServeFlags(f, &o)
	return cmd
}

func addServeFlags(f *pflag.FlagSet, o *server.Options) {
	f.StringVar(&o.DataDir, "data-dir", o.DataDir, "holds everything that outlives the process; $"+dataDirEnv+" changes the default")
	f.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "where to write the administrator's kubeconfig, besides \"kubeconfig\" in the data directory")
	f.StringVar(&o.Listen, "listen", o.Listen, "the API's host:port; port 0 takes any free one, that of the last time if it still is")
	f.BoolVar(&o.Node, "node", o.Node, "run pods here; with false, pods stay Pending until a node of your own takes them")
	f.StringVar(&o.NodeName, "node-name", o.NodeName, "the Node's name (default the host's name)")
	f.IntVar(&o.MaxPods, "max-pods", o.MaxPods, "how many pods may run at once")
	f.StringVar(&o.PodUserIDs, "pod-user-ids", o.PodUserIDs, "FIRST:LENGTH, as in /etc/subuid: the host's user and group IDs that pods with hostUsers: false get, 65536 each")
	f.Int64Var(&o.PodMaxPids, "pod-max-pids", o.PodMaxPids, "how many processes and threads a pod may have at once; -1 is any number")
	f.StringVar(&o.PodCIDR, "pod-cidr", o.PodCIDR, "the range of the pods' addresses (default the first of a few private ranges that the host doesn't use)")
	f.BoolVar(&o.ClusterDNS, "cluster-dns", o.ClusterDNS, "answer pods' questions for names, at port 53 of the address that they reach the host by; with false pods ask the host's resolvers and know no names of Services")
	f.BoolVar(&o.KubernetesService, "kubernetes-service", o.KubernetesService, "let pods reach the API as on a cluster, at https://kubernetes.default.svc and $KUBERNETES_SERVICE_HOST, with what RBAC gives their service accounts; with false they don't reach it")
	f.StringSliceVar(&o.Etcd.Servers, "etcd-servers", nil, "an etcd cluster to use in place of the embedded one, as URLs")
	f.StringVar(&o.Etcd.CAFile, "etcd-cafile", "", "CA that signed the etcd servers' certificates")
	f.StringVar(&o.Etcd.CertFile, "etcd-certfile", "", "client certificate for etcd")
	f.StringVar(&o.Etcd.KeyFile, "etcd-keyfile", "", "key of --etcd-certfile")
	f.StringVar(&o.ContainerRuntimeEndpoint, "container-runtime-endpoint", o.ContainerRuntimeEndpoint, "the CRI socket of a containerd or CRI-O that runs pods in the place of errand's own runtime, such as unix:///run/containerd/containerd.sock")
	f.StringVar(&o.ImageServiceEndpoint, "image-service-endpoint", o.ImageServiceEndpoint, "the CRI socket of its image service (default --container-runtime-endpoint)")
	f.StringToStringVar(&o.Runtimes, "runtime", nil, "OCI runtimes as RUNTIMECLASS-HANDLER=PATH (default the first runc or crun that serves)")
	f.StringVar(&o.DefaultRuntime, "default-runtime", o.DefaultRuntime, "the --runtime of pods without a RuntimeClass")
	f.BoolVar(&o.NativeLauncher, "native-launcher", o.NativeLauncher, "start ordinary containers of pods without a RuntimeClass by errand itself, not by --default-runtime")
	f.StringVar(&o.Shim, "shim", o.Shim, "path of errand-shim (default beside errand, then $PATH)")
	f.StringVar(&o.RegistriesConf, "registries-conf", o.RegistriesConf, "containers-registries.conf(5) (default its usual places)")
	f.StringVar(&o.AuthFile, "authfile", o.AuthFile, "containers-auth.json(5) (default its usual places)")
	f.StringVar(&o.SignaturePolicy, "signature-policy", o.SignaturePolicy, "containers-policy.json(5): which images may be pulled; one that wants a signature is refused (default its usual places)")
	f.StringVar(&o.ImagePullCredentialsVerificationPolicy, "image-pull-credentials-verification-policy", o.ImagePullCredentialsVerificationPolicy, "when a pod must show by its imagePullSecrets that it may have an image that is present: NeverVerify, NeverVerifyPreloadedImages (if a pod has brought it), NeverVerifyAllowlistedImages or AlwaysVerify")
	f.StringSliceVar(&o.PreloadedImagesVerificationAllowlist, "preloaded-images-verification-allowlist", nil, "the images that are everybody's with NeverVerifyAllowlistedImages, such as registry.example/team/*")
	f.StringVar(&o.ContainerLogMaxSize, "container-log-max-size", o.ContainerLogMaxSize, "the size at which a container's log goes on in a new file, such as 10Mi; 0 lets logs grow")
	f.IntVar(&o.ContainerLogMaxFiles, "container-log-max-files", o.ContainerLogMaxFiles, "how many files of a container's log are kept, the current one included")
	f.StringVar(&o.KeptLogsMaxSize, "kept-logs-max-size", o.KeptLogsMaxSize, "how much of the disk the logs of Jobs' pods that are gone may take, such as 1Gi, the oldest going first; 0 keeps none")
	f.IntVar(&o.ImageGCHighThresholdPercent, "image-gc-high-threshold-percent", o.ImageGCHighThresholdPercent, "the use of the disk at which images that no pod needs are removed; 100 is never")
	f.IntVar(&o.ImageGCLowThresholdPercent, "image-gc-low-threshold-percent", o.ImageGCLowThresholdPercent, "the use of the disk down to which they are removed")
	f.DurationVar(&o.ImageMinimumGCAge, "image-minimum-gc-age", o.ImageMinimumGCAge, "how long an image stays at least")
	f.DurationVar(&o.ImageMaximumGCAge, "image-maximum-gc-age", o.ImageMaximumGCAge, "how long an image may be unused, whatever the disk's use; 0 is for ever")
	f.Var(cliflag.NewLangleSeparatedMapStringString(&o.EvictionHard), "eviction-hard", "thresholds at which pods are evicted at once, such as memory.available<500Mi,nodefs.available<5%; empty is none "+
		"(default memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%,pid.available<5%, but at most 10Gi of a disk)")
	f.Var(cliflag.NewLangleSeparatedMapStringString(&o.EvictionSoft), "eviction-soft", "thresholds at which pods are evicted once they have been met for --eviction-soft-grace-period")
	f.Var(cliflag.NewMapStringString(&o.EvictionSoftGracePeriod), "eviction-soft-grace-period", "how long each of --eviction-soft must have been met, such as memory.available=1m30s")
	f.Var(cliflag.NewMapStringString(&o.EvictionMinimumReclaim), "eviction-minimum-reclaim", "how much beyond a threshold that was met must be free again, such as nodefs.available=500Mi")
	f.DurationVar(&o.EvictionPressureTransitionPeriod, "eviction-pressure-transition-period", o.EvictionPressureTransitionPeriod, "how long the Node tells of a pressure after it was last seen")
	f.Int64Var(&o.EvictionMaxPodGracePeriod, "eviction-max-pod-grace-period", o.EvictionMaxPodGracePeriod, "the most seconds that pods get to end in when an --eviction-soft threshold was met")
	f.DurationVar(&o.EventTTL, "event-ttl", o.EventTTL, "how long events are kept")
	f.IntVar(&o.TerminatedPodGCThreshold, "terminated-pod-gc-threshold", o.TerminatedPodGCThreshold, "how many pods that have ended are kept, the newest ones; 0 is all")
	f.DurationVar(&o.PodFailureBackoff, "pod-failure-backoff", o.PodFailureBackoff, "delay after a Job's first failed pod, doubled with each further one")
	f.DurationVar(&o.MaxPodFailureBackoff, "max-pod-failure-backoff", o.MaxPodFailureBackoff, "the longest such delay")
	f.StringVar(&o.Tracing.Endpoint, "tracing-endpoint", o.Tracing.Endpoint, "the host:port of an OpenTelemetry collector that gets a trace of each pod, by OTLP over gRPC (default none)")
	f.Int32Var(&o.Tracing.SamplingRatePerMillion, "tracing-sampling-rate-per-million", o.Tracing.SamplingRatePerMillion, "how many pods of a million it gets a trace of")
}

// readConfig reads the file over the defaults, then says again what flags
// said, so that flags win: for --runtime, name by name.
func readConfig(flags *pflag.FlagSet, o *server.Options, path string) error {
	if path == "" {
		return nil
	}
	var again []func() error
	flags.Visit(func(f *pflag.Flag) {
		switch v := f.Value.(type) {
		case *cliflag.LangleSeparatedMapStringString:
			said := v.String()
			again = append(again, func() error { *v.Map = nil; return v.Set(said) })
		case *cliflag.MapStringString:
			said := v.String()
			again = append(again, func() error { *v.Map = nil; return v.Set(said) })
		case pflag.SliceValue:
			said := v.GetSlice()
			again = append(again, func() error { return v.Replace(said) })
		default:
			said := v.String()
			if v.Type() == "stringToString" {
				// It prints itself in brackets, but doesn't read them.
				said = strings.TrimSuffix(strings.TrimPrefix(said, "["), "]")
			}
			again = append(again, func() error { return v.Set(said) })
		}
	})
	if err := o.ReadFile(path); err != nil {
		return err
	}
	for _, say := range again {
		if err := say(); err != nil {
			return fmt.Errorf("set a flag over %s: %w", path, err)
		}
	}
	return nil
}
