package inprocess_test

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	jobstore "k8s.io/kubernetes/pkg/registry/batch/job/storage"
	leasestore "k8s.io/kubernetes/pkg/registry/coordination/lease/storage"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	quotastore "k8s.io/kubernetes/pkg/registry/core/resourcequota/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	budgetstore "k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget/storage"
)

func apiGroups(opts generic.RESTOptionsGetter, client kubernetes.Interface) ([]*genericapiserver.APIGroupInfo, error) {
	core, err := coreStorage(opts, client)
	if err != nil {
		return nil, err
	}
	jobs, err := jobstore.NewStorage(opts)
	if err != nil {
		return nil, err
	}
	leases, err := leasestore.NewREST(opts)
	if err != nil {
		return nil, err
	}
	budgets, budgetStatus, err := budgetstore.NewREST(opts)
	if err != nil {
		return nil, err
	}
	group := func(name string, storage map[string]rest.Storage) *genericapiserver.APIGroupInfo {
		g := genericapiserver.NewDefaultAPIGroupInfo(name, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
		g.VersionedResourcesStorageMap["v1"] = storage
		return &g
	}
	return []*genericapiserver.APIGroupInfo{
		group("", core),
		group("batch", map[string]rest.Storage{"jobs": jobs.Job, "jobs/status": jobs.Status}),
		group("coordination.k8s.io", map[string]rest.Storage{"leases": leases}),
		group("policy", map[string]rest.Storage{"poddisruptionbudgets": budgets, "poddisruptionbudgets/status": budgetStatus}),
		group("events.k8s.io", map[string]rest.Storage{"events": core["events"]}),
	}, nil
}

func coreStorage(opts generic.RESTOptionsGetter, client kubernetes.Interface) (map[string]rest.Storage, error) {
	pods, err := podstore.NewStorage(opts, nil, nil, client.PolicyV1(), authorizerfactory.NewAlwaysAllowAuthorizer())
	if err != nil {
		return nil, err
	}
	storage := map[string]rest.Storage{
		"pods": pods.Pod, "pods/status": pods.Status, "pods/binding": pods.Binding, "pods/ephemeralcontainers": pods.EphemeralContainers,
		"pods/eviction": pods.Eviction,
	}
	add := func(name string) func(rest.Storage, error) {
		return func(s rest.Storage, serr error) {
			storage[name] = s
			if serr != nil {
				err = fmt.Errorf("%s: %w", name, serr)
			}
		}
	}
	add("configmaps")(configmapstore.NewREST(opts))
	add("secrets")(secretstore.NewREST(opts))
	add("events")(eventstore.NewREST(opts, 3600))
	quotas, quotaStatus, qerr := quotastore.NewREST(opts)
	add("resourcequotas")(quotas, qerr)
	add("resourcequotas/status")(quotaStatus, qerr)
	namespaces, nsStatus, nsFinalize, nerr := namespacestore.NewREST(opts)
	add("namespaces")(namespaces, nerr)
	add("namespaces/status")(nsStatus, nerr)
	add("namespaces/finalize")(nsFinalize, nerr)
	if err != nil {
		return nil, err
	}
	nodes, err := nodestore.NewStorage(opts, kubeletclient.KubeletClientConfig{PreferredAddressTypes: []string{"InternalIP"}}, nil)
	if err != nil {
		return nil, err
	}
	storage["nodes"], storage["nodes/status"] = nodes.Node, nodes.Status
	return storage, nil
}

func storageOf(groups []*genericapiserver.APIGroupInfo) func(schema.GroupVersionResource, string) (rest.Storage, bool) {
	return func(r schema.GroupVersionResource, subresource string) (rest.Storage, bool) {
		path := r.Resource
		if subresource != "" {
			path += "/" + subresource
		}
		for _, g := range groups {
			if g.PrioritizedVersions[0].Group == r.Group {
				s, ok := g.VersionedResourcesStorageMap[r.Version][path]
				return s, ok
			}
		}
		return nil, false
	}
}
