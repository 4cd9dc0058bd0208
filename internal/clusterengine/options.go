package clusterengine

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"errand.dev/errand/internal/jobs"
)

// ManagedByErrand is the spec.managedBy of the Jobs that are run unless told
// otherwise (KEP-4368).
const ManagedByErrand = "errand.dev/job-controller"

// Options are what a user can set.
type Options struct {
	// Kubeconfig is the path of the kubeconfig to reach the cluster by; empty
	// means the cluster in which this process is a pod.
	Kubeconfig string
	// Context is one of Kubeconfig's; empty means its current one.
	Context string
	// Namespace is the only one whose Jobs are run; empty means all.
	Namespace string
	// ManagedBy is the spec.managedBy of the Jobs that are run. With
	// kubernetes.io/job-controller, those that name none are, too.
	ManagedBy string
	// LeaderElect says whether a lease decides which of several replicas acts.
	LeaderElect bool
	// Lease is that lease.
	Lease LeaseOptions
	// MetricsBindAddress is the host:port of metrics and probes; "0" means none.
	MetricsBindAddress string
	// Profiling says whether /debug/pprof is served there, too.
	Profiling bool
	// Workers is how many Jobs are synced at a time.
	Workers int
	// QPS bounds the requests a second, on average, and Burst those at once; 0
	// QPS means no bound, 0 Burst twice QPS.
	QPS   float32
	Burst int
	// PodFailureBackoff is the delay after a Job's first failed pod; it doubles
	// with each further one up to MaxPodFailureBackoff.
	PodFailureBackoff    time.Duration
	MaxPodFailureBackoff time.Duration
}

// LeaseOptions are those of the lease that one of several replicas holds.
type LeaseOptions struct {
	// Namespace and Name are the Lease object's. An empty Namespace is that of
	// this pod, or kube-system outside of a cluster; an empty Name follows from
	// which Jobs are run, so that only replicas with the same work exclude each
	// other.
	Namespace, Name string
	// Duration, in whole seconds, is how long the others wait after the last
	// renewal that they saw, before one of them takes over.
	Duration time.Duration
	// RenewDeadline is how long after the last renewal its holder goes on.
	RenewDeadline time.Duration
	// RetryPeriod is how often the lease is renewed, and asked for.
	RetryPeriod time.Duration
}

// DefaultOptions are the options before any flag.
func DefaultOptions() Options {
	return Options{
		ManagedBy:   ManagedByErrand,
		LeaderElect: true,
		Lease: LeaseOptions{
			Duration:      15 * time.Second,
			RenewDeadline: 10 * time.Second,
			RetryPeriod:   2 * time.Second,
		},
		MetricsBindAddress:   "127.0.0.1:8080",
		Workers:              jobs.DefaultWorkers,
		PodFailureBackoff:    jobs.DefaultPodFailureBackoff,
		MaxPodFailureBackoff: jobs.DefaultMaxPodFailureBackoff,
	}
}

// Validate tells everything that is wrong with the options at once.
func (o *Options) Validate() error {
	return errors.Join(
		o.validateCluster(),
		o.validateManagedBy(),
		o.validateLease(),
		o.validateAddress(),
		o.validateEngine(),
	)
}

func (o *Options) validateCluster() error {
	var errs []error
	if o.Context != "" && o.Kubeconfig == "" {
		errs = append(errs, errors.New("--context is one of a kubeconfig's: name that with --kubeconfig"))
	}
	if o.QPS < 0 {
		errs = append(errs, fmt.Errorf("--kube-api-qps %g: must not be negative; 0 means no limit", o.QPS))
	}
	if o.Burst < 0 {
		errs = append(errs, fmt.Errorf("--kube-api-burst %d: must not be negative", o.Burst))
	}
	if o.Burst > 0 && o.QPS == 0 {
		errs = append(errs, errors.New("--kube-api-burst limits nothing without --kube-api-qps: give both"))
	}
	return errors.Join(append(errs, namespace("--namespace", o.Namespace))...)
}

func namespace(flag, name string) error {
	if name == "" {
		return nil
	}
	return flawed(flag, name, validation.IsDNS1123Label(name))
}

func flawed(flag, value string, flaws []string) error {
	var errs []error
	for _, flaw := range flaws {
		errs = append(errs, fmt.Errorf("%s %q: %s", flag, value, flaw))
	}
	return errors.Join(errs...)
}

// maxManagedBy is how long the API lets spec.managedBy be.
const maxManagedBy = 63

func (o *Options) validateManagedBy() error {
	var flaws []string
	for _, err := range validation.IsDomainPrefixedPath(field.NewPath("managedBy"), o.ManagedBy) {
		flaws = append(flaws, err.ErrorBody())
	}
	if len(o.ManagedBy) > maxManagedBy {
		flaws = append(flaws, fmt.Sprintf("must be no longer than %d characters", maxManagedBy))
	}
	return flawed("--managed-by", o.ManagedBy, flaws)
}

// minRenewals is how many renewals must fit between the last one and giving up,
// as one of client-go's conditions has it.
const minRenewals = 1.2

func (o *Options) validateLease() error {
	if !o.LeaderElect {
		return nil
	}
	l := o.Lease
	errs := []error{namespace("--leader-elect-resource-namespace", l.Namespace)}
	if name := o.leaseName(); o.validateManagedBy() == nil {
		if flaws := validation.IsDNS1123Subdomain(name); l.Name != "" {
			errs = append(errs, flawed("--leader-elect-resource-name", name, flaws))
		} else if len(flaws) > 0 {
			errs = append(errs, fmt.Errorf("--managed-by %q doesn't make a name for the lease: give one with --leader-elect-resource-name", o.ManagedBy))
		}
	}
	if l.Duration < time.Second || l.Duration%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--leader-elect-lease-duration %s: must be whole seconds, at least one", l.Duration))
	}
	if l.Duration <= l.RenewDeadline {
		errs = append(errs, fmt.Errorf("--leader-elect-renew-deadline %s: must be less than --leader-elect-lease-duration (%s)", l.RenewDeadline, l.Duration))
	}
	if least := time.Duration(minRenewals * float64(l.RetryPeriod)); l.RetryPeriod <= 0 || l.RenewDeadline <= least {
		errs = append(errs, fmt.Errorf("--leader-elect-retry-period %s: must be more than 0, and 1.2 times it less than --leader-elect-renew-deadline (%s)", l.RetryPeriod, l.RenewDeadline))
	}
	return errors.Join(errs...)
}

// leaseName is the name of the lease: that of the work, unless one is given.
func (o *Options) leaseName() string {
	if o.Lease.Name != "" {
		return o.Lease.Name
	}
	name := "errand-" + strings.ReplaceAll(o.ManagedBy, "/", "-")
	if o.ManagedBy == ManagedByErrand {
		name = "errand-controller"
	}
	if o.Namespace != "" {
		name += "." + o.Namespace
	}
	return name
}

func (o *Options) validateAddress() error {
	if o.MetricsBindAddress == noAddress {
		return nil
	}
	host, port, err := net.SplitHostPort(o.MetricsBindAddress)
	if err != nil {
		return fmt.Errorf("--metrics-bind-address %q is neither host:port nor 0: %w", o.MetricsBindAddress, err)
	}
	if host != "" && host != "localhost" && net.ParseIP(host) == nil {
		return fmt.Errorf("--metrics-bind-address %q: the host must be an IP address, localhost, or empty for all addresses", o.MetricsBindAddress)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("--metrics-bind-address %q: %w", o.MetricsBindAddress, err)
	}
	return nil
}

func (o *Options) validateEngine() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--workers %d: must be at least 1", o.Workers))
	}
	if o.PodFailureBackoff <= 0 {
		errs = append(errs, fmt.Errorf("--pod-failure-backoff %s: must be more than 0", o.PodFailureBackoff))
	}
	if o.MaxPodFailureBackoff < o.PodFailureBackoff {
		errs = append(errs, fmt.Errorf("--max-pod-failure-backoff %s: must be at least --pod-failure-backoff (%s)", o.MaxPodFailureBackoff, o.PodFailureBackoff))
	}
	return errors.Join(errs...)
}

// managesAll says whether Jobs that name no manager are this process's as well.
func (o *Options) managesAll() bool { return o.ManagedBy == batchv1.JobControllerName }
