package controllers

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
)

// graphInformers gives the garbage collector and the quota controller an
// informer for every kind: the shared typed one for the kinds that errand
// caches whole anyway, a metadata-only one for the rest. Upstream takes typed
// ones for all kinds it knows, which would keep every Secret, Event and Role
// in memory for the sake of their owner references.
type graphInformers struct {
	typed    informers.SharedInformerFactory
	metadata metadatainformer.SharedInformerFactory
	node     bool
}

// typedAnyway are the kinds that other components watch in full: the engine, the
// node, authorization, admission. A second informer for one of them would hold
// it twice. Quota counts pods by their spec, so pods must be among them.
var typedAnyway = map[schema.GroupVersionResource]bool{
	{Version: "v1", Resource: "pods"}:                                                                     true,
	{Version: "v1", Resource: "nodes"}:                                                                    true,
	{Version: "v1", Resource: "namespaces"}:                                                               true,
	{Version: "v1", Resource: "serviceaccounts"}:                                                          true,
	{Version: "v1", Resource: "configmaps"}:                                                               true,
	{Version: "v1", Resource: "resourcequotas"}:                                                           true,
	{Version: "v1", Resource: "services"}:                                                                 true,
	{Version: "v1", Resource: "persistentvolumes"}:                                                        true,
	{Version: "v1", Resource: "persistentvolumeclaims"}:                                                   true,
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}:                                  true,
	{Group: "batch", Version: "v1", Resource: "jobs"}:                                                     true,
	{Group: "batch", Version: "v1", Resource: "cronjobs"}:                                                 true,
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}:                                    true,
	{Version: "v1", Resource: "limitranges"}:                                                              true,
	{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"}:                              true,
	{Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses"}:                                     true,
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}:                         true,
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}:                  true,
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}:                                true,
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}:                         true,
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}:     true,
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}:   true,
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}:       true,
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}: true,
}

// secrets are watched in full by the node agent, where there is one.
var secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

func newGraphInformers(c Config, client metadata.Interface) *graphInformers {
	return &graphInformers{typed: c.Informers, metadata: metadatainformer.NewSharedInformerFactory(client, 0), node: c.Nodes}
}

// ForResource implements informerfactory.InformerFactory.
func (g *graphInformers) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	if typedAnyway[r] || r == secrets && g.node {
		return g.typed.ForResource(r)
	}
	return g.metadata.ForResource(r), nil
}

// Start implements informerfactory.InformerFactory.
func (g *graphInformers) Start(stop <-chan struct{}) {
	g.typed.Start(stop)
	g.metadata.Start(stop)
}
