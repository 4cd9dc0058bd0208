package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/apiserver/etcd"
)

const (
	// DefaultEventTTL is how long Events are kept unless told, as in kube-apiserver.
	DefaultEventTTL     = time.Hour
	defaultServiceRange = "10.96.0.0/16"
)

// Config says what a server serves, where it keeps it and for whom. Fields that
// are not said to be optional must be set.
type Config struct {
	// DataDir holds the store and the certificates. The caller holds its lock.
	DataDir string
	// RuntimeDir holds the store's unix socket; it must exist and its path must
	// be shorter than about 90 bytes.
	RuntimeDir string

	// Listen is host:port; port 0 takes any free one. If Listener is set, only
	// its host matters: the certificate names it.
	Listen string
	// Listener, if set, is a TCP listener to serve TLS on; the server closes it.
	Listener net.Listener
	// ServiceAddress, if set, tells at which address pods reach the API, by port
	// 443 as by the listener's: the certificate names it, and the Service
	// "kubernetes" has it as its cluster IP. It is called once and may wait; an
	// error ends New. Nil means that pods don't reach the API, and that there is
	// no such Service. What listens there is given to AddListener.
	ServiceAddress func(context.Context) (netip.Addr, error)

	// Kubeconfig is where the administrator's kubeconfig is written besides
	// "kubeconfig" in DataDir; empty means nowhere else.
	Kubeconfig string

	// Etcd names an etcd cluster to use instead of the embedded one.
	Etcd etcd.External
	// EtcdQuotaBytes limits the embedded store; 0 means etcd.DefaultQuotaBytes.
	EtcdQuotaBytes int64

	// Provisioner is what makes the volumes of the StorageClass "standard", which
	// a fresh store gets as its default one; "" makes no class.
	Provisioner string
	// NodeName is the node whose agent NodeDialer reaches.
	NodeName string
	// NodeDialer connects to the node agent's private HTTP server, for logs,
	// exec, attach, port-forward and the node proxy. Nil means that there is no
	// such node; nodes of the user's own are reached at the address they report.
	NodeDialer func(context.Context) (net.Conn, error)

	// PodNames says that pods resolve the names of Services, which whoever makes
	// one is told.
	PodNames bool
	// ServiceRange is the CIDR that addresses of Services come from; empty means
	// 10.96.0.0/16. Nothing routes to them, ServiceAddress apart.
	ServiceRange string
	// EventTTL is how long Events are kept; 0 means an hour.
	EventTTL time.Duration
	// Version is errand's own, shown as the build part of /version; may be empty.
	Version string
	// Clock tells when certificates end; nil means the real one.
	Clock clock.Clock
}

// Validate returns every mistake in the config.
func (c *Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, wrong("DataDir", errors.New("must be set")))
	}
	if c.RuntimeDir == "" && len(c.Etcd.Endpoints) == 0 {
		errs = append(errs, wrong("RuntimeDir", errors.New("must be set for the embedded store")))
	}
	if c.Listener == nil {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, wrong("Listen", fmt.Errorf("want host:port: %w", err)))
		}
	}
	if c.ServiceRange != "" {
		if _, _, err := net.ParseCIDR(c.ServiceRange); err != nil {
			errs = append(errs, wrong("ServiceRange", err))
		}
	}
	if c.NodeDialer != nil && c.NodeName == "" {
		errs = append(errs, wrong("NodeName", errors.New("must be set with NodeDialer")))
	}
	if (c.Etcd.CertFile == "") != (c.Etcd.KeyFile == "") {
		errs = append(errs, wrong("Etcd", errors.New("CertFile and KeyFile go together")))
	}
	if c.EtcdQuotaBytes < 0 {
		errs = append(errs, wrong("EtcdQuotaBytes", errors.New("must not be negative")))
	}
	return utilerrors.NewAggregate(errs)
}

func wrong(field string, err error) error { return fmt.Errorf("%s: %w", field, err) }

// complete returns a copy with every default filled in.
func (c *Config) complete() (*completedConfig, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("API server's configuration: %w", err)
	}
	done := completedConfig{Config: *c}
	if done.Clock == nil {
		done.Clock = clock.RealClock{}
	}
	if done.EventTTL == 0 {
		done.EventTTL = DefaultEventTTL
	}
	if done.ServiceRange == "" {
		done.ServiceRange = defaultServiceRange
	}
	if done.Kubeconfig == "" {
		done.Kubeconfig = filepath.Join(c.DataDir, kubeconfigFile)
	}
	_, cidr, err := net.ParseCIDR(done.ServiceRange)
	if err != nil {
		return nil, err
	}
	done.serviceRange = cidr
	if done.hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("read the host's name: %w", err)
	}
	return &done, nil
}

type completedConfig struct {
	Config
	serviceRange *net.IPNet
	serviceAddr  netip.Addr // what ServiceAddress told; invalid without
	hostname     string
}

func (c *completedConfig) etcdDir() string { return filepath.Join(c.DataDir, "etcd") }
func (c *completedConfig) pkiDir() string  { return filepath.Join(c.DataDir, "pki") }
