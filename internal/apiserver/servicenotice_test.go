package apiserver

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	api "k8s.io/kubernetes/pkg/apis/core"
)

func TestServiceNotice(t *testing.T) {
	selector := map[string]string{"job": "a"}
	port := func(port int32, target intstr.IntOrString) []api.ServicePort {
		return []api.ServicePort{{Port: port, TargetPort: target}}
	}
	for name, c := range map[string]struct {
		noNames bool
		spec    api.ServiceSpec
		want    string // "" means no warning
		not     string
	}{
		"headless":      {spec: api.ServiceSpec{ClusterIP: api.ClusterIPNone, Selector: selector}},
		"external name": {spec: api.ServiceSpec{Type: api.ServiceTypeExternalName, ExternalName: "db.example"}},
		"no selector":   {spec: api.ServiceSpec{ClusterIP: api.ClusterIPNone}, want: "by its selector, and this one has none"},
		"cluster IP":    {spec: api.ServiceSpec{Type: api.ServiceTypeClusterIP, Selector: selector, Ports: port(80, intstr.FromInt32(80))}, want: "as with clusterIP: None", not: "own port"},
		"another port":  {spec: api.ServiceSpec{Type: api.ServiceTypeNodePort, Selector: selector, Ports: port(80, intstr.FromInt32(8080))}, want: "own port: 8080, not 80"},
		"node port":     {spec: api.ServiceSpec{Type: api.ServiceTypeNodePort, Selector: selector, Ports: port(80, intstr.FromInt32(80))}, want: "nor is its node port opened"},
		"load balancer": {spec: api.ServiceSpec{Type: api.ServiceTypeLoadBalancer, Selector: selector, Ports: port(80, intstr.FromInt32(80))}, want: "nor does it get a load balancer"},
		"a named port":  {spec: api.ServiceSpec{Selector: selector, Ports: port(80, intstr.FromString("web"))}, want: "own port: web, not 80"},
		"no names":      {noNames: true, spec: api.ServiceSpec{ClusterIP: api.ClusterIPNone, Selector: selector}, want: "by address only"},
	} {
		t.Run(name, func(t *testing.T) {
			got := serviceNotice{names: !c.noNames}.text(&c.spec)
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("told %q, want %q in it", got, c.want)
			}
		})
	}
}

// Whoever changes a Service hears of it once more only where there is something else to say.
func TestServiceNoticeOfChanges(t *testing.T) {
	service := func(kind api.ServiceType, label string) *api.Service {
		s := &api.Service{Spec: api.ServiceSpec{Type: kind, Selector: map[string]string{"job": "a"}}}
		s.Labels = map[string]string{"l": label}
		return s
	}
	for name, c := range map[string]struct {
		old, changed *api.Service
		want         int
	}{
		"made":           {nil, service(api.ServiceTypeClusterIP, "1"), 1},
		"another label":  {service(api.ServiceTypeClusterIP, "1"), service(api.ServiceTypeClusterIP, "2"), 0},
		"made NodePort":  {service(api.ServiceTypeClusterIP, "1"), service(api.ServiceTypeNodePort, "1"), 1},
		"made harmless":  {service(api.ServiceTypeNodePort, "1"), service(api.ServiceTypeExternalName, "1"), 0},
		"another's kind": {nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var object, old runtime.Object = &api.Pod{}, nil
			operation := admission.Create
			if c.changed != nil {
				object = c.changed
			}
			if c.old != nil {
				old, operation = c.old, admission.Update
			}
			heard := &warnings{}
			n := serviceNotice{names: true}
			a := admission.NewAttributesRecord(object, old, api.Kind("Service").WithVersion("v1"), "ns", "s", api.Resource("services").WithVersion("v1"), "", operation, nil, false, nil)
			if err := n.Validate(warning.WithWarningRecorder(t.Context(), heard), a, nil); err != nil || !n.Handles(operation) {
				t.Error(err)
			}
			if len(*heard) != c.want {
				t.Errorf("told %q, want %d warnings", *heard, c.want)
			}
		})
	}
}

type warnings []string

func (w *warnings) AddWarning(_, text string) { *w = append(*w, text) }
