package apiserver

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpointsstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	limitrangestore "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	persistentvolumestore "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	persistentvolumeclaimstore "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplatestore "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	resourcequotastore "k8s.io/kubernetes/pkg/registry/core/resourcequota/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccountstore "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// maxTokenLifetime bounds what a TokenRequest may ask for.
const maxTokenLifetime = 365 * 24 * time.Hour

// coreGroup builds the core group's registries one by one. Upstream's provider
// also builds, and starts watching for, ReplicationControllers, which we don't
// serve.
type coreGroup struct {
	authorizer authorizer.Authorizer
	audiences  authenticator.Audiences
	tokens     serviceaccount.TokenGenerator
	client     kubernetes.Interface
	eventTTL   time.Duration
	// connections reaches nodes; those of others once the group is built.
	connections *nodeConnections
	services    *serviceAddresses
}

func (g *coreGroup) build(options generic.RESTOptionsGetter) (*genericapiserver.APIGroupInfo, error) {
	stores := map[string]rest.Storage{}
	for _, add := range []func(generic.RESTOptionsGetter, map[string]rest.Storage) error{
		addPlain, addStatusful, addVolumes, g.addEvents, g.addRunning, g.addEndpoints,
	} {
		if err := add(options, stores); err != nil {
			return nil, err
		}
	}
	info := genericapiserver.NewDefaultAPIGroupInfo(api.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	info.NegotiatedSerializer = serializer.NewCodecFactory(legacyscheme.Scheme,
		serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf())
	info.VersionedResourcesStorageMap[corev1.SchemeGroupVersion.Version] = stores
	return &info, nil
}

// addPlain adds the kinds that are only kept.
func addPlain(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	configMaps, err := configmapstore.NewREST(options)
	if err != nil {
		return err
	}
	secrets, err := secretstore.NewREST(options)
	if err != nil {
		return err
	}
	limitRanges, err := limitrangestore.NewREST(options)
	if err != nil {
		return err
	}
	podTemplates, err := podtemplatestore.NewREST(options)
	if err != nil {
		return err
	}
	stores["configmaps"] = configMaps
	stores["secrets"] = secrets
	stores["limitranges"] = limitRanges
	stores["podtemplates"] = podTemplates
	return nil
}

func addStatusful(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	namespaces, namespaceStatus, namespaceFinalize, err := namespacestore.NewREST(options)
	if err != nil {
		return err
	}
	quotas, quotaStatus, err := resourcequotastore.NewREST(options)
	if err != nil {
		return err
	}
	stores["namespaces"] = namespaces
	stores["namespaces/status"] = namespaceStatus
	stores["namespaces/finalize"] = namespaceFinalize
	stores["resourcequotas"] = quotas
	stores["resourcequotas/status"] = quotaStatus
	return nil
}

// addVolumes adds storage that outlives pods, and the claims to it.
func addVolumes(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	volumes, volumeStatus, err := persistentvolumestore.NewREST(options)
	if err != nil {
		return err
	}
	claims, claimStatus, err := persistentvolumeclaimstore.NewREST(options)
	if err != nil {
		return err
	}
	stores["persistentvolumes"] = volumes
	stores["persistentvolumes/status"] = volumeStatus
	stores["persistentvolumeclaims"] = claims
	stores["persistentvolumeclaims/status"] = claimStatus
	return nil
}

func (g *coreGroup) addEvents(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	events, err := eventstore.NewREST(options, uint64(g.eventTTL.Seconds()))
	if err != nil {
		return err
	}
	stores["events"] = events
	return nil
}

// addRunning adds nodes, pods and what pods run as. Resizing a running pod
// isn't served: no node would do it.
func (g *coreGroup) addRunning(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	nodes, err := nodestore.NewStorage(options, otherNodes(), podTransport())
	if err != nil {
		return err
	}
	g.connections.others = nodes.KubeletConnectionInfo
	nodes.Proxy.Connection = g.connections
	pods, err := podstore.NewStorage(options, g.connections, podTransport(), g.client.PolicyV1(), g.authorizer)
	if err != nil {
		return err
	}
	webhooks := g.client.AdmissionregistrationV1()
	accounts, err := serviceaccountstore.NewREST(
		options, g.tokens, g.audiences, g.authorizer, maxTokenLifetime,
		pods.Pod.Store, stores["secrets"].(rest.Getter), nodes.Node.Store,
		webhooks.ValidatingWebhookConfigurations(), webhooks.MutatingWebhookConfigurations(), false, 0)
	if err != nil {
		return err
	}
	stores["nodes"] = nodes.Node
	stores["nodes/status"] = nodes.Status
	stores["nodes/proxy"] = nodes.Proxy
	stores["serviceaccounts"] = accounts
	stores["serviceaccounts/token"] = accounts.Token
	stores["bindings"] = pods.LegacyBinding
	stores["pods"] = pods.Pod
	stores["pods/attach"] = pods.Attach
	stores["pods/binding"] = pods.Binding
	stores["pods/ephemeralcontainers"] = pods.EphemeralContainers
	stores["pods/eviction"] = pods.Eviction
	stores["pods/exec"] = pods.Exec
	stores["pods/log"] = pods.Log
	stores["pods/portforward"] = pods.PortForward
	stores["pods/proxy"] = pods.Proxy
	stores["pods/resize"] = pods.Resize
	stores["pods/status"] = pods.Status
	return nil
}

func (g *coreGroup) addEndpoints(options generic.RESTOptionsGetter, stores map[string]rest.Storage) error {
	endpoints, err := endpointsstore.NewREST(options)
	if err != nil {
		return err
	}
	pods := stores["pods"].(*podstore.REST)
	services, status, proxy, err := servicestore.NewREST(
		options, g.services.ips.IPFamily(), g.services.byFamily(), g.services.ports, nil, pods, podTransport())
	if err != nil {
		return err
	}
	proxy.Destroy() // not served: there is nothing behind a Service
	g.services.lister = services
	stores["endpoints"] = endpoints
	stores["services"] = services
	stores["services/status"] = status
	return nil
}
