package apiserver

import (
	"context"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	api "k8s.io/kubernetes/pkg/apis/core"
)

const serviceNoticeName = "ServiceNotice"

// serviceNotice tells who makes a Service, or makes another kind of it, what of it won't hold here. It never
// refuses one: manifests that hold a Job and a Service, and operators that make
// both, are to work.
type serviceNotice struct {
	// names says that pods resolve the names of Services.
	names bool
}

func registerServiceNotice(names bool) func(*admission.Plugins) {
	return func(plugins *admission.Plugins) {
		plugins.Register(serviceNoticeName, func(io.Reader) (admission.Interface, error) {
			return serviceNotice{names}, nil
		})
	}
}

var _ admission.ValidationInterface = serviceNotice{}

// Handles implements admission.Interface.
func (serviceNotice) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.ValidationInterface.
func (n serviceNotice) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != api.Resource("services") || a.GetSubresource() != "" {
		return nil
	}
	service, ok := a.GetObject().(*api.Service)
	if !ok {
		return nil
	}
	text := n.text(&service.Spec)
	if old, ok := a.GetOldObject().(*api.Service); ok && n.text(&old.Spec) == text {
		return nil // said before
	}
	if text != "" {
		warning.AddWarning(ctx, "", text)
	}
	return nil
}

// text is the warning, or "" where all of the Service holds.
func (n serviceNotice) text(spec *api.ServiceSpec) string {
	switch {
	case !n.names:
		return "errand stores Services but neither routes to them nor resolves their names: pods reach each other by address only"
	case spec.Type == api.ServiceTypeExternalName:
		return ""
	case len(spec.Selector) == 0:
		return "errand finds a Service's addresses by its selector, and this one has none: its name won't resolve, even with EndpointSlices"
	case spec.ClusterIP == api.ClusterIPNone:
		return ""
	}
	text := "errand routes nothing to a Service's cluster IP: its name resolves to the addresses of its pods, as with clusterIP: None"
	switch spec.Type {
	case api.ServiceTypeNodePort:
		text += "; nor is its node port opened on the machine: containers have a hostPort for that"
	case api.ServiceTypeLoadBalancer:
		text += "; nor does it get a load balancer, and it stays pending: containers have a hostPort for what comes from outside"
	}
	var moved []string
	for _, p := range spec.Ports {
		if p.TargetPort.Type == intstr.String || p.TargetPort.IntVal != p.Port {
			moved = append(moved, fmt.Sprintf("%s, not %d", p.TargetPort.String(), p.Port))
		}
	}
	if len(moved) > 0 {
		text += "; connect to the pods' own port: " + strings.Join(moved, "; ")
	}
	return text
}
