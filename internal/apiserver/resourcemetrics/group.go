package resourcemetrics

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	corelisters "k8s.io/client-go/listers/core/v1"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"
)

// NewScheme returns the group's kinds. They aren't put into the scheme of all
// others, which is upstream's and in use.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return scheme
}

// Versions are those that the group is served in. One is like the other; kubectl
// before 1.37 knows only the second.
func Versions() []schema.GroupVersion {
	return []schema.GroupVersion{metricsv1.SchemeGroupVersion, metricsv1beta1.SchemeGroupVersion}
}

// Group builds the group's registries. All fields must be set.
type Group struct {
	Scheme *runtime.Scheme
	Pods   corelisters.PodLister
	Nodes  corelisters.NodeLister
	// Connections tells how nodes are reached.
	Connections kubeletclient.ConnectionInfoGetter
	Clock       clock.Clock
}

// GroupName returns the group's name.
func (Group) GroupName() string { return metrics.GroupName }

// NewRESTStorage builds the registries, as those of the other groups are; the
// arguments are about what is stored, and this isn't.
func (g Group) NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(metrics.GroupName, g.Scheme, runtime.NewParameterCodec(g.Scheme), serializer.NewCodecFactory(g.Scheme))
	common := registry{TableConvertor: table{}, sampler: &sampler{nodes: g.Nodes, connections: g.Connections, clock: g.Clock}}
	stores := map[string]rest.Storage{
		"pods":  &Pods{registry: common, pods: g.Pods},
		"nodes": &Nodes{registry: common, nodes: g.Nodes},
	}
	for _, gv := range Versions() {
		info.VersionedResourcesStorageMap[gv.Version] = stores
	}
	return info, nil
}
