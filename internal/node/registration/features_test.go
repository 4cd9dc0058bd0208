package registration

import (
	"slices"
	"testing"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	kubefeatures "k8s.io/kubernetes/pkg/features"
)

type gates struct{ featuregate.FeatureGate }

func (g gates) Enabled(key string) bool { return g.FeatureGate.Enabled(featuregate.Feature(key)) }

// The node declares all that the API server admits by its default gates. One that a
// later Kubernetes adds is to be built, or named here.
func TestDeclaredFeatures(t *testing.T) {
	notDeclared := []string{
		string(kubefeatures.ExtendWebSocketsToKubelet), // the API server turns WebSockets into SPDY, which the node speaks
	}
	config := &nodedeclaredfeatures.NodeConfiguration{FeatureGates: gates{utilfeature.DefaultFeatureGate}}
	want := slices.DeleteFunc(nodedeclaredfeatures.DefaultFramework.DiscoverNodeFeatures(config), func(name string) bool {
		return slices.Contains(notDeclared, name)
	})
	if !slices.Equal(declaredFeatures, want) {
		t.Errorf("declared are %q, want %q", declaredFeatures, want)
	}
}
