package registration

import (
	"context"
	"errors"
	"fmt"
	"net"

	v1 "k8s.io/api/core/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Runtime is what is asked of the container runtime; the CRI's RuntimeService has it.
type Runtime interface {
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
	Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error)
}

// Images is what is asked of the image store; the CRI's ImageManagerService has it.
type Images interface {
	ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
}

// Config is what a Registration needs. Fields that aren't marked optional must be set.
type Config struct {
	Client   kubernetes.Interface
	Nodes    coreinformers.NodeInformer // its owner starts it, after New
	NodeName string
	Runtime  Runtime
	Images   Images
	// Host knows the machine; LinuxHost makes one.
	Host Host
	// Under tells whether the machine is under a pressure. Optional: it never is.
	Under func(v1.NodeConditionType) bool
	// Recorder is for events about the Node. Optional: there are none.
	Recorder record.EventRecorder
	// NodeIP is the InternalIP. Optional: the address of the default route.
	NodeIP net.IP
	// PodCIDRs are the ranges that pods get addresses from, at most one per IP family.
	PodCIDRs []string
	// Version is told as kubeletVersion: a Kubernetes version, with errand's as
	// build metadata, such as v1.37.2+errand.v0.1.0.
	Version string
	// MaxPods is how many pods may run at a time. Optional: DefaultMaxPods.
	MaxPods int64
	// Reserved is kept from pods. Optional: DefaultReserved of the capacity.
	Reserved v1.ResourceList
	// Labels are set on the Node besides the standard ones. Optional.
	Labels map[string]string
	// Clock defaults to the real one.
	Clock clock.WithTicker
}

func (c *Config) complete() error {
	var errs []error
	for name, missing := range map[string]bool{
		"Client": c.Client == nil, "Nodes": c.Nodes == nil, "NodeName": c.NodeName == "", "Runtime": c.Runtime == nil,
		"Images": c.Images == nil, "Host": c.Host == nil, "Version": c.Version == "",
	} {
		if missing {
			errs = append(errs, fmt.Errorf("%s is not set", name))
		}
	}
	if c.MaxPods == 0 {
		c.MaxPods = DefaultMaxPods
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.NodeIP == nil {
		c.NodeIP = defaultRouteIP()
	}
	return errors.Join(errs...)
}

// defaultRouteIP is the address that packets to the world leave from, or
// loopback's on a machine without a network. No packet is sent.
func defaultRouteIP() net.IP {
	for _, probe := range []struct{ network, address string }{
		{"udp4", "192.0.2.1:9"}, {"udp6", "[2001:db8::1]:9"}, // documentation addresses, RFC 5737 and 3849
	} {
		conn, err := net.Dial(probe.network, probe.address)
		if err != nil {
			continue
		}
		local, ok := conn.LocalAddr().(*net.UDPAddr)
		if closeErr := conn.Close(); ok && closeErr == nil && !local.IP.IsUnspecified() {
			return local.IP
		}
	}
	return net.IPv4(127, 0, 0, 1)
}
