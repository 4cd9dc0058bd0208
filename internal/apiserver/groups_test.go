package apiserver

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
)

func TestEveryGroupIsDiscoverable(t *testing.T) {
	groups, lists, err := shared.client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	served := map[schema.GroupVersion]bool{}
	for _, group := range groups {
		for _, version := range group.Versions {
			served[schema.GroupVersion{Group: group.Name, Version: version.Version}] = true
		}
	}
	resources := map[string]bool{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			resources[list.GroupVersion+" "+resource.Name] = true
		}
	}
	for _, gv := range servedVersions() {
		if !served[gv] {
			t.Errorf("%s isn't served", gv)
		}
		delete(served, gv)
	}
	for gv := range served {
		t.Errorf("%s is served, only stable versions of what Jobs need should be", gv)
	}
	for _, want := range []string{
		"v1 pods/log", "v1 pods/exec", "v1 pods/attach", "v1 pods/portforward", "v1 nodes/proxy", "v1 serviceaccounts/token",
		"v1 pods/ephemeralcontainers", "v1 pods/resize", "v1 pods/binding", "v1 pods/eviction", "policy/v1 poddisruptionbudgets/status", "batch/v1 jobs/status", "batch/v1 cronjobs",
		"admissionregistration.k8s.io/v1 mutatingadmissionpolicies", "admissionregistration.k8s.io/v1 validatingadmissionpolicies/status",
		"scheduling.k8s.io/v1 priorityclasses", "node.k8s.io/v1 runtimeclasses", "events.k8s.io/v1 events", "discovery.k8s.io/v1 endpointslices",
		"v1 persistentvolumes/status", "v1 persistentvolumeclaims/status", "storage.k8s.io/v1 storageclasses",
		"metrics.k8s.io/v1 pods", "metrics.k8s.io/v1beta1 nodes",
	} {
		if !resources[want] {
			t.Errorf("%s isn't served", want)
		}
	}
	for _, absent := range []string{"apps/v1 deployments", "v1 replicationcontrollers", "storage.k8s.io/v1 csinodes"} {
		if resources[absent] {
			t.Errorf("%s is served, though nothing acts on it", absent)
		}
	}
}

func TestDiscoveryIsAggregated(t *testing.T) {
	body, err := shared.client.Discovery().RESTClient().Get().AbsPath("/apis").
		SetHeader("Accept", discovery.AcceptV2).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Kind  string `json:"kind"`
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	groups := sets.New[string]()
	for _, gv := range servedVersions() {
		groups.Insert(gv.Group)
	}
	if list.Kind != "APIGroupDiscoveryList" || len(list.Items) != len(groups)-1 { // the core group isn't at /apis
		t.Errorf("got %s of %d groups, want APIGroupDiscoveryList of %d", list.Kind, len(list.Items), len(groups)-1)
	}
}

// TestEveryKindIsDescribed covers what kubectl explain and client-side
// validation read.
func TestEveryKindIsDescribed(t *testing.T) {
	paths, err := shared.client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for _, gv := range servedVersions() {
		path := paths[descriptionPath(gv)]
		if path == nil {
			t.Errorf("%s has no OpenAPI v3 description", gv)
			continue
		}
		body, err := path.Schema("application/json")
		if err != nil {
			t.Errorf("%s: %v", gv, err)
			continue
		}
		if gv.Group == "batch" && !strings.Contains(string(body), "suspend specifies whether the Job controller should create Pods or not") {
			t.Error("the description of batch/v1 doesn't explain job.spec.suspend")
		}
	}
	v2, err := shared.client.Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	if got := v2.GetInfo().GetTitle(); got != "Kubernetes" {
		t.Errorf("OpenAPI v2 is titled %q", got)
	}
}

// TestTokenKeysArePublished covers what a verifier of service account tokens
// outside of errand reads.
func TestTokenKeysArePublished(t *testing.T) {
	rest := shared.client.Discovery().RESTClient()
	discovered, err := rest.Get().AbsPath("/.well-known/openid-configuration").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(discovered), `"issuer":"`+tokenIssuer+`"`) {
		t.Errorf("%s, %v", discovered, err)
	}
	keys, err := rest.Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(keys), `"crv":"P-256"`) {
		t.Errorf("%s, %v", keys, err)
	}
}

func TestVersion(t *testing.T) {
	version, err := shared.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.Major != "1" || version.Minor != "37" || !strings.HasPrefix(version.GitVersion, KubernetesVersion+"+errand") {
		t.Errorf("version is %+v", version)
	}
}
