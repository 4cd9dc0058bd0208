package jobs

import (
	"errors"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	batchinformers "k8s.io/client-go/informers/batch/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	kmetrics "k8s.io/component-base/metrics"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/podtrace"
)

const (
	// DefaultPodFailureBackoff is the delay before the first failed pod of a Job is replaced.
	DefaultPodFailureBackoff = 10 * time.Second
	// DefaultMaxPodFailureBackoff is what the delay grows to.
	DefaultMaxPodFailureBackoff = 10 * time.Minute
	// DefaultWorkers is how many Jobs are synced at a time.
	DefaultWorkers = 8
	// DefaultInFlight is how many pods of one Job are created (or deleted, or released) at a time: enough for writes to share the store's fsyncs.
	DefaultInFlight = 32
)

// Config is what a Controller is made of.
type Config struct {
	// Client reads and writes Jobs, pods and events. It should not throttle: the engine paces itself by what the API answers.
	Client kubernetes.Interface
	// Jobs and Pods are the informers to follow. The caller starts them, after New.
	Jobs batchinformers.JobInformer
	Pods coreinformers.PodInformer
	// Recorder of events about Jobs; nil: the Controller makes one with the Client.
	Recorder record.EventRecorder
	// Clock tells the time; nil: the real one.
	Clock clock.WithTicker
	// ManagedBy is the manager whose Jobs this is (spec.managedBy, KEP-4368). The default is batchv1.JobControllerName, which also
	// manages the Jobs that name no manager.
	ManagedBy string
	// PodFailureBackoff is the delay before a failed pod is replaced; it doubles with each failure until MaxPodFailureBackoff. Zero means
	// upstream's 10 seconds and 10 minutes.
	PodFailureBackoff, MaxPodFailureBackoff time.Duration
	// Workers is how many Jobs are synced at a time; zero: DefaultWorkers.
	Workers int
	// InFlight is how many pods of one Job are created at a time; zero: DefaultInFlight.
	InFlight int
	// Traces records where the pods' time goes; nil: nobody does.
	Traces *podtrace.Recorder
	// RegisterMetrics shows the metrics, e.g. legacyregistry.Register; nil: nobody sees them.
	RegisterMetrics func(kmetrics.Registerable) error
}

// validate returns all that is wrong with the Config.
func (c *Config) validate() error {
	var errs []error
	for _, check := range []struct {
		wrong bool
		what  string
	}{
		{c.Client == nil, "Client is missing"},
		{c.Jobs == nil, "Jobs is missing"},
		{c.Pods == nil, "Pods is missing"},
		{c.PodFailureBackoff < 0, "PodFailureBackoff is negative"},
		{c.MaxPodFailureBackoff < 0, "MaxPodFailureBackoff is negative"},
		{c.Workers < 0, "Workers is negative"},
		{c.InFlight < 0, "InFlight is negative"},
	} {
		if check.wrong {
			errs = append(errs, errors.New("jobs.Config: "+check.what))
		}
	}
	return errors.Join(errs...)
}

// complete returns the Config with all defaults.
func (c Config) complete() Config {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.ManagedBy == "" {
		c.ManagedBy = batchv1.JobControllerName
	}
	if c.PodFailureBackoff == 0 {
		c.PodFailureBackoff = DefaultPodFailureBackoff
	}
	if c.MaxPodFailureBackoff == 0 {
		c.MaxPodFailureBackoff = max(DefaultMaxPodFailureBackoff, c.PodFailureBackoff)
	}
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.InFlight == 0 {
		c.InFlight = DefaultInFlight
	}
	return c
}
