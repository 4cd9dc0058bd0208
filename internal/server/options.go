package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/node/eviction"
	"errand.dev/errand/internal/node/imagegc"
	"errand.dev/errand/internal/node/imagepull"
	"errand.dev/errand/internal/node/userns"
	"errand.dev/errand/internal/podgc"
	"errand.dev/errand/internal/podtrace/otlp"
)

// DefaultListen is where the API listens unless told otherwise.
const DefaultListen = "127.0.0.1:7443"

// Options are what a user can set, by flag or in a file. The file's fields
// have the names of the yaml tags.
type Options struct {
	// DataDir holds everything that outlives the process.
	DataDir string `yaml:"dataDir"`
	// Kubeconfig is where the administrator's kubeconfig is written besides
	// "kubeconfig" in DataDir; empty means nowhere else.
	Kubeconfig string `yaml:"kubeconfig"`
	// Listen is the API's host:port; port 0 means any free one.
	Listen string `yaml:"listen"`
	// Node says whether this process runs pods itself.
	Node bool `yaml:"node"`
	// NodeName is the Node object's name; empty means the host's name.
	NodeName string `yaml:"nodeName"`
	// MaxPods is how many pods the node takes at once.
	MaxPods int `yaml:"maxPods"`
	// PodUserIDs are the host's user and group IDs that pods with hostUsers: false
	// get, 65536 each: FIRST:LENGTH.
	PodUserIDs string `yaml:"podUserIDs"`
	// PodMaxPids is how many processes and threads a pod may have at once; -1 is
	// any number (podPidsLimit in KubeletConfiguration).
	PodMaxPids int64 `yaml:"podMaxPids"`
	// PodCIDR is the range of the pods' addresses; empty means the first of a
	// few private ranges that the host doesn't use.
	PodCIDR string `yaml:"podCIDR"`
	// ClusterDNS says whether pods' questions for names are answered here, those of
	// Services and pods among them; with false they are the host's resolvers'.
	ClusterDNS bool `yaml:"clusterDNS"`
	// KubernetesService says whether pods reach the API, by the Service
	// "kubernetes" as on any cluster.
	KubernetesService bool `yaml:"kubernetesService"`
	// Etcd names an etcd cluster to use in place of the embedded one.
	Etcd EtcdOptions `yaml:"etcd"`
	// ContainerRuntimeEndpoint is the CRI socket of another program's runtime, as
	// unix:///run/containerd/containerd.sock, that runs pods in the place of the
	// embedded one; empty means the latter. ImageServiceEndpoint is that of its image
	// service; empty means the same.
	ContainerRuntimeEndpoint string `yaml:"containerRuntimeEndpoint"`
	ImageServiceEndpoint     string `yaml:"imageServiceEndpoint"`
	// Runtimes are the OCI runtimes by RuntimeClass handler: name to path. The
	// one called DefaultRuntime serves pods without a RuntimeClass.
	Runtimes map[string]string `yaml:"runtimes"`
	// DefaultRuntime is a key of Runtimes.
	DefaultRuntime string `yaml:"defaultRuntime"`
	// NativeLauncher has the containers of pods without a RuntimeClass started by errand's own launcher; those that it doesn't
	// take, and all with false, are DefaultRuntime's.
	NativeLauncher bool `yaml:"nativeLauncher"`
	// Shim is the path of errand-shim; empty means beside errand, then $PATH.
	Shim string `yaml:"shim"`
	// RegistriesConf and AuthFile are containers-registries.conf(5) and
	// containers-auth.json(5); empty means their usual places.
	RegistriesConf string `yaml:"registriesConf"`
	AuthFile       string `yaml:"authFile"`
	// SignaturePolicy is containers-policy.json(5); empty means its usual places.
	SignaturePolicy string `yaml:"signaturePolicy"`
	// Which pods may have an image that is present, as in KubeletConfiguration.
	ImagePullCredentialsVerificationPolicy string   `yaml:"imagePullCredentialsVerificationPolicy"`
	PreloadedImagesVerificationAllowlist   []string `yaml:"preloadedImagesVerificationAllowlist"`
	// ContainerLogMaxSize is the size, a quantity such as 10Mi, at which a
	// container's log is rotated; 0 lets logs grow. ContainerLogMaxFiles is how
	// many files of a log there are, the current one included.
	ContainerLogMaxSize  string `yaml:"containerLogMaxSize"`
	ContainerLogMaxFiles int    `yaml:"containerLogMaxFiles"`
	// KeptLogsMaxSize is how much of the disk, a quantity such as 256Mi, the logs of
	// Jobs' pods that are gone may take; 0 keeps none.
	KeptLogsMaxSize string `yaml:"keptLogsMaxSize"`
	// When images that no pod needs are removed, as in KubeletConfiguration.
	ImageGCHighThresholdPercent int           `yaml:"imageGCHighThresholdPercent"`
	ImageGCLowThresholdPercent  int           `yaml:"imageGCLowThresholdPercent"`
	ImageMinimumGCAge           time.Duration `yaml:"imageMinimumGCAge"`
	ImageMaximumGCAge           time.Duration `yaml:"imageMaximumGCAge"`
	// When pods are evicted, as in KubeletConfiguration.
	EvictionHard                     map[string]string `yaml:"evictionHard"`
	EvictionSoft                     map[string]string `yaml:"evictionSoft"`
	EvictionSoftGracePeriod          map[string]string `yaml:"evictionSoftGracePeriod"`
	EvictionMinimumReclaim           map[string]string `yaml:"evictionMinimumReclaim"`
	EvictionPressureTransitionPeriod time.Duration     `yaml:"evictionPressureTransitionPeriod"`
	EvictionMaxPodGracePeriod        int64             `yaml:"evictionMaxPodGracePeriod"`
	// EventTTL is how long Events are kept.
	EventTTL time.Duration `yaml:"eventTTL"`
	// TerminatedPodGCThreshold is how many pods that have ended are kept; the
	// oldest of more are deleted. 0 or less keeps all.
	TerminatedPodGCThreshold int `yaml:"terminatedPodGCThreshold"`
	// PodFailureBackoff is the delay after a Job's first failed pod; it doubles
	// with each further one up to MaxPodFailureBackoff.
	PodFailureBackoff    time.Duration `yaml:"podFailureBackoff"`
	MaxPodFailureBackoff time.Duration `yaml:"maxPodFailureBackoff"`
	// Tracing says where spans of pods and Jobs go.
	Tracing TracingOptions `yaml:"tracing"`
}

// TracingOptions are Kubernetes' TracingConfiguration.
type TracingOptions struct {
	// Endpoint is the collector's, for OTLP over gRPC; "" sends nothing.
	Endpoint string `yaml:"endpoint"`
	// SamplingRatePerMillion is how many pods of a million are sampled. Nobody
	// who asks for a pod brings a trace of its own, so that the default is all.
	SamplingRatePerMillion int32 `yaml:"samplingRatePerMillion"`
}

// EtcdOptions reach an etcd cluster.
type EtcdOptions struct {
	Servers  []string `yaml:"servers"`
	CAFile   string   `yaml:"caFile"`
	CertFile string   `yaml:"certFile"`
	KeyFile  string   `yaml:"keyFile"`
}

// DefaultOptions are the options before any flag or file.
func DefaultOptions() Options {
	gc := imagegc.DefaultPolicy()
	return Options{
		DataDir:              instance.DefaultDataDir,
		Listen:               DefaultListen,
		Node:                 true,
		MaxPods:              110,
		PodMaxPids:           -1,
		PodUserIDs:           userns.DefaultIDs().String(),
		ContainerLogMaxSize:  "10Mi",
		ContainerLogMaxFiles: 5,
		KeptLogsMaxSize:      "256Mi",
		NativeLauncher:       true,
		ClusterDNS:           true,
		KubernetesService:    true,

		ImageGCHighThresholdPercent: gc.HighPercent,
		ImageGCLowThresholdPercent:  gc.LowPercent,
		ImageMinimumGCAge:           gc.MinAge,
		ImageMaximumGCAge:           gc.MaxAge,

		ImagePullCredentialsVerificationPolicy: imagepull.DefaultVerification,

		EvictionPressureTransitionPeriod: eviction.DefaultPressureTransitionPeriod,

		EventTTL:                 apiserver.DefaultEventTTL,
		TerminatedPodGCThreshold: podgc.DefaultThreshold,

		PodFailureBackoff:    10 * time.Second,
		MaxPodFailureBackoff: 10 * time.Minute,

		Tracing: TracingOptions{SamplingRatePerMillion: otlp.FullSamplingRate},
	}
}

// ReadFile sets the options that the YAML file at path names and leaves the
// others. An unknown field or a wrong type is an error with its line.
func (o *Options) ReadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(o); err != nil && !errors.Is(err, io.EOF) {
		var typeErr *yaml.TypeError
		if errors.As(err, &typeErr) {
			return fmt.Errorf("%s: %s", path, strings.Join(typeErr.Errors, "; "))
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Validate tells everything that is wrong with the options at once.
func (o *Options) Validate() error {
	return errors.Join(
		o.validateDataDir(),
		o.validateAPI(),
		o.validateEtcd(),
		o.validateNode(),
		o.validateEngine(),
		o.validateTracing(),
	)
}

func (o *Options) validateDataDir() error {
	if o.DataDir == "" {
		return errors.New("--data-dir is empty: name a folder")
	}
	return nil
}

func (o *Options) validateAPI() error {
	var errs []error
	if host, port, err := net.SplitHostPort(o.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q is not host:port: %w", o.Listen, err))
	} else {
		if host != "localhost" && net.ParseIP(host) == nil {
			errs = append(errs, fmt.Errorf("--listen %q: the host must be an IP address or localhost", o.Listen))
		}
		if _, err := net.LookupPort("tcp", port); err != nil {
			errs = append(errs, fmt.Errorf("--listen %q: %w", o.Listen, err))
		}
	}
	if o.EventTTL < time.Second {
		errs = append(errs, fmt.Errorf("--event-ttl %s: must be a second or more", o.EventTTL))
	}
	return errors.Join(errs...)
}

func (o *Options) validateEtcd() error {
	e := o.Etcd
	var errs []error
	for _, s := range e.Servers {
		if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "unix://") {
			errs = append(errs, fmt.Errorf("--etcd-servers: %q is not a URL such as https://10.0.0.1:2379", s))
		}
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		errs = append(errs, errors.New("--etcd-certfile and --etcd-keyfile go together"))
	}
	if len(e.Servers) == 0 && (e.CAFile != "" || e.CertFile != "") {
		errs = append(errs, errors.New("--etcd-cafile, --etcd-certfile and --etcd-keyfile need --etcd-servers"))
	}
	return errors.Join(errs...)
}

func (o *Options) validateNode() error {
	var errs []error
	if o.NodeName != "" {
		for _, msg := range validation.IsDNS1123Subdomain(o.NodeName) {
			errs = append(errs, fmt.Errorf("--node-name %q: %s", o.NodeName, msg))
		}
	}
	if o.MaxPods < 1 {
		errs = append(errs, fmt.Errorf("--max-pods %d: must be at least 1", o.MaxPods))
	}
	if o.PodMaxPids < 1 && o.PodMaxPids != -1 {
		errs = append(errs, fmt.Errorf("--pod-max-pids %d: must be at least 1, or -1 for any number", o.PodMaxPids))
	}
	_, err := o.podUserIDs()
	errs = append(errs, err)
	_, err = o.logMaxSize()
	errs = append(errs, err)
	_, err = o.keptLogsMaxSize()
	errs = append(errs, err)
	if err := o.imageGCPolicy().Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := imagepull.ValidateVerification(o.ImagePullCredentialsVerificationPolicy, o.PreloadedImagesVerificationAllowlist); err != nil {
		errs = append(errs, err)
	}
	if err := o.evictionPolicy().Validate(); err != nil {
		errs = append(errs, err)
	}
	if o.ContainerLogMaxFiles < 2 {
		errs = append(errs, fmt.Errorf("--container-log-max-files %d: must be at least 2, the current one and the last", o.ContainerLogMaxFiles))
	}
	_, err = o.podCIDRs()
	errs = append(errs, err)
	errs = append(errs, o.validateEndpoints())
	if o.DefaultRuntime != "" && o.Runtimes[o.DefaultRuntime] == "" {
		errs = append(errs, fmt.Errorf("--default-runtime %q is not among --runtime", o.DefaultRuntime))
	}
	for name, path := range o.Runtimes {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("--runtime %s=%s: must be an absolute path", name, path))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) imageGCPolicy() imagegc.Policy {
	return imagegc.Policy{
		HighPercent: o.ImageGCHighThresholdPercent, LowPercent: o.ImageGCLowThresholdPercent,
		MinAge: o.ImageMinimumGCAge, MaxAge: o.ImageMaximumGCAge,
	}
}

func (o *Options) evictionPolicy() eviction.Policy {
	return eviction.Policy{
		Hard: o.EvictionHard, Soft: o.EvictionSoft,
		SoftGracePeriod: o.EvictionSoftGracePeriod, MinimumReclaim: o.EvictionMinimumReclaim,
		PressureTransitionPeriod: o.EvictionPressureTransitionPeriod, MaxPodGracePeriod: o.EvictionMaxPodGracePeriod,
	}
}

// podCIDRs is PodCIDR; none if it is to be found.
func (o *Options) podCIDRs() ([]netip.Prefix, error) {
	if o.PodCIDR == "" {
		return nil, nil
	}
	p, err := netip.ParsePrefix(o.PodCIDR)
	if err != nil || !p.Addr().Is4() || p.Bits() > 28 {
		return nil, fmt.Errorf("--pod-cidr %q: must be an IPv4 range of /28 or wider, as ADDRESS/LENGTH, such as 10.57.0.0/16", o.PodCIDR)
	}
	return []netip.Prefix{p}, nil
}

// podUserIDs is PodUserIDs, of which there are enough for all pods.
func (o *Options) podUserIDs() (userns.IDs, error) {
	ids, err := userns.ParseIDs(o.PodUserIDs)
	if err != nil {
		return userns.IDs{}, fmt.Errorf("--pod-user-ids: %w", err)
	}
	if ids.Pods() < o.MaxPods {
		return userns.IDs{}, fmt.Errorf("--pod-user-ids %s: holds IDs for %d pods (%d each), and --max-pods is %d", o.PodUserIDs, ids.Pods(), userns.IDsPerPod, o.MaxPods)
	}
	return ids, nil
}

// logMaxSize is ContainerLogMaxSize in bytes.
func (o *Options) logMaxSize() (int64, error) {
	return parseSize("--container-log-max-size", o.ContainerLogMaxSize)
}

// keptLogsMaxSize is KeptLogsMaxSize in bytes.
func (o *Options) keptLogsMaxSize() (int64, error) {
	return parseSize("--kept-logs-max-size", o.KeptLogsMaxSize)
}

// parseSize reads a flag's number of bytes.
func parseSize(flag, text string) (int64, error) {
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("%s %q: %w", flag, text, err)
	}
	if q.Sign() < 0 {
		return 0, fmt.Errorf("%s %s: must not be negative", flag, text)
	}
	return q.Value(), nil
}

func (o *Options) validateEngine() error {
	var errs []error
	if o.PodFailureBackoff <= 0 {
		errs = append(errs, fmt.Errorf("--pod-failure-backoff %s: must be more than 0", o.PodFailureBackoff))
	}
	if o.MaxPodFailureBackoff < o.PodFailureBackoff {
		errs = append(errs, fmt.Errorf("--max-pod-failure-backoff %s: must be at least --pod-failure-backoff (%s)", o.MaxPodFailureBackoff, o.PodFailureBackoff))
	}
	return errors.Join(errs...)
}
