package apiserver

import (
	"context"
	"io"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	api "k8s.io/kubernetes/pkg/apis/core"
)

const (
	serviceNoticeName = "ServiceNotice"
	serviceNoticeText = "errand stores Services but neither routes to them nor resolves their names: pods reach each other by address only"
)

// serviceNotice tells who makes a Service that it won't carry traffic. It never
// refuses one: manifests that hold a Job and a Service, and operators that make
// both, are to work.
type serviceNotice struct{}

func registerServiceNotice(plugins *admission.Plugins) {
	plugins.Register(serviceNoticeName, func(io.Reader) (admission.Interface, error) {
		return serviceNotice{}, nil
	})
}

var _ admission.ValidationInterface = serviceNotice{}

// Handles implements admission.Interface.
func (serviceNotice) Handles(op admission.Operation) bool { return op == admission.Create }

// Validate implements admission.ValidationInterface.
func (serviceNotice) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() == api.Resource("services") && a.GetSubresource() == "" {
		warning.AddWarning(ctx, "", serviceNoticeText)
	}
	return nil
}
