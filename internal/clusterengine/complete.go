package clusterengine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/internal/version"
)

// podNamespaceFile is where a pod finds the namespace that it is in.
const podNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Config is what Options come to once it is known where the process runs.
type Config struct {
	options Options
	// rest reaches the API server. What it makes clients of may be wrapped.
	rest *rest.Config
	// identity is this replica's among those that share the lease.
	identity string
}

// Complete fills in what follows from others and from where the process runs.
// The Options must be valid.
func (o Options) Complete() (*Config, error) {
	cfg, err := o.restConfig()
	if err != nil {
		return nil, err
	}
	cfg.QPS = o.QPS
	if o.QPS == 0 {
		cfg.QPS = -1 // the API server knows best how much it bears
	}
	cfg.Burst = o.Burst
	if o.Burst == 0 {
		cfg.Burst = int(2*o.QPS) + 1
	}
	// A third of JSON's bytes, and a fraction of its CPU time at both ends.
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = strings.Join([]string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON}, ",")
	// The API server would pack each event of a watch by itself: unpacking them took
	// a tenth of this process's CPU time, for bytes that a cluster's network has.
	cfg.DisableCompression = true
	v := version.Get()
	cfg.UserAgent = fmt.Sprintf("errand-controller/%s (%s)", v.Version, v.Platform)
	o.Lease.Name = o.leaseName()
	if o.Lease.Namespace == "" {
		o.Lease.Namespace = o.leaseNamespace()
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find out this host's name: %w", err)
	}
	// Two processes on one host are two; a container that restarts is another.
	return &Config{options: o, rest: cfg, identity: host + "_" + uuid.NewString()}, nil
}

func (o Options) restConfig() (*rest.Config, error) {
	if o.Kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this process isn't in a pod of a cluster: name a kubeconfig with --kubeconfig")
		}
		if err != nil {
			return nil, fmt.Errorf("find the cluster that this pod is in: %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: o.Context},
	).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("--kubeconfig %s: it names no cluster: see kubectl config get-contexts", o.Kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", o.Kubeconfig, err)
	}
	return cfg, nil
}

// leaseNamespace is where the lease is unless told: with the pod, whose service
// account may well have no rights elsewhere.
func (o Options) leaseNamespace() string {
	if o.Kubeconfig == "" {
		if b, err := os.ReadFile(podNamespaceFile); err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
	}
	return metav1.NamespaceSystem
}

// client makes a client whose requests edit may still change the way of.
func (c *Config) client(edit func(*rest.Config)) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(c.reach(edit))
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", c.rest.Host, err)
	}
	return client, nil
}

// reach is a copy of how the API server is reached, which edit has changed.
func (c *Config) reach(edit func(*rest.Config)) *rest.Config {
	cfg := rest.CopyConfig(c.rest)
	edit(cfg)
	return cfg
}

// leaseTimeout is how long one request about the lease may take: renewing is
// tried twice before it is too late.
func (c *Config) leaseTimeout() time.Duration {
	return max(c.options.Lease.RenewDeadline/2, time.Second)
}
