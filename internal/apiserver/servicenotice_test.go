package apiserver

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
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
