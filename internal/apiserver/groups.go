package apiserver

import (
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	storageapi "k8s.io/kubernetes/pkg/apis/storage"
	admissionregistrationrest "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	authenticationrest "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorizationrest "k8s.io/kubernetes/pkg/registry/authorization/rest"
	batchrest "k8s.io/kubernetes/pkg/registry/batch/rest"
	coordinationrest "k8s.io/kubernetes/pkg/registry/coordination/rest"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	eventsrest "k8s.io/kubernetes/pkg/registry/events/rest"
	noderest "k8s.io/kubernetes/pkg/registry/node/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	priorityclassstore "k8s.io/kubernetes/pkg/registry/scheduling/priorityclass/storage"
	storageclassstore "k8s.io/kubernetes/pkg/registry/storage/storageclass/storage"

	// The kinds of each group served, with their defaults and conversions.
	_ "k8s.io/kubernetes/pkg/apis/admission/install"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"

	"errand.dev/errand/internal/apiserver/resourcemetrics"
)

// servedVersions are the API versions served: the stable one of each group, and
// of metrics.k8s.io the one that older kubectls know, too.
func servedVersions() []schema.GroupVersion {
	stable := []schema.GroupVersion{
		corev1.SchemeGroupVersion,
		admissionregistrationv1.SchemeGroupVersion,
		authenticationv1.SchemeGroupVersion,
		authorizationv1.SchemeGroupVersion,
		batchv1.SchemeGroupVersion,
		coordinationv1.SchemeGroupVersion,
		discoveryv1.SchemeGroupVersion,
		eventsv1.SchemeGroupVersion,
		nodev1.SchemeGroupVersion,
		policyv1.SchemeGroupVersion,
		rbacv1.SchemeGroupVersion,
		schedulingv1.SchemeGroupVersion,
		storagev1.SchemeGroupVersion,
	}
	return append(stable, resourcemetrics.Versions()...)
}

func servedResources() *serverstorage.ResourceConfig {
	config := serverstorage.NewResourceConfig()
	config.EnableVersions(servedVersions()...)
	return config
}

// storageProvider builds one group's registries, as upstream's providers do.
type storageProvider interface {
	GroupName() string
	NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error)
}

// providers lists the groups after the core one. Discovery keeps the order.
func providers(c *genericapiserver.Config, done *completedConfig, client kubernetes.Interface) []storageProvider {
	auth := c.Authorization.Authorizer
	return []storageProvider{
		authenticationrest.RESTStorageProvider{Authenticator: c.Authentication.Authenticator, APIAudiences: c.Authentication.APIAudiences},
		authorizationrest.RESTStorageProvider{Authorizer: auth, RuleResolver: c.RuleResolver},
		batchrest.RESTStorageProvider{},
		coordinationrest.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		noderest.RESTStorageProvider{},
		policyrest.RESTStorageProvider{},
		rbacrest.RESTStorageProvider{Authorizer: auth},
		priorityClasses{},
		storageClasses{},
		admissionregistrationrest.RESTStorageProvider{Authorizer: auth, DiscoveryClient: client.Discovery()},
		eventsrest.RESTStorageProvider{TTL: done.EventTTL},
	}
}

// priorityClasses is the scheduling group without the kinds of gang scheduling.
type priorityClasses struct{}

func (priorityClasses) GroupName() string { return scheduling.GroupName }

func (priorityClasses) NewRESTStorage(_ serverstorage.APIResourceConfigSource, options generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(scheduling.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	store, err := priorityclassstore.NewREST(options)
	if err != nil {
		return info, err
	}
	info.VersionedResourcesStorageMap[schedulingv1.SchemeGroupVersion.Version] = map[string]rest.Storage{"priorityclasses": store}
	return info, nil
}

// storageClasses is the storage group without what CSI drivers need, and
// without volume attributes, which only they can change.
type storageClasses struct{}

func (storageClasses) GroupName() string { return storageapi.GroupName }

func (storageClasses) NewRESTStorage(_ serverstorage.APIResourceConfigSource, options generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(storageapi.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	store, err := storageclassstore.NewREST(options)
	if err != nil {
		return info, err
	}
	info.VersionedResourcesStorageMap[storagev1.SchemeGroupVersion.Version] = map[string]rest.Storage{"storageclasses": store}
	return info, nil
}

// registries are all registries by API version, then by resource or
// resource/subresource.
type registries map[schema.GroupVersion]map[string]rest.Storage

func (r registries) add(info *genericapiserver.APIGroupInfo) {
	for _, gv := range info.PrioritizedVersions {
		if stores := info.VersionedResourcesStorageMap[gv.Version]; len(stores) > 0 {
			r[gv] = stores
		}
	}
}

// withStorage leaves out the versions that upstream knows and we don't serve;
// the server would warn of each.
func withStorage(info *genericapiserver.APIGroupInfo) []schema.GroupVersion {
	return slices.DeleteFunc(slices.Clone(info.PrioritizedVersions), func(gv schema.GroupVersion) bool {
		return len(info.VersionedResourcesStorageMap[gv.Version]) == 0
	})
}

// installGroups puts every group on the server and returns their registries.
func installGroups(server *genericapiserver.GenericAPIServer, core *coreGroup, others []storageProvider, options *storageOptions, resources serverstorage.APIResourceConfigSource) (registries, error) {
	all := registries{}
	coreInfo, err := core.build(options)
	if err != nil {
		return nil, fmt.Errorf("set up the core group: %w", err)
	}
	if err := server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, coreInfo); err != nil {
		return nil, fmt.Errorf("serve the core group: %w", err)
	}
	all.add(coreInfo)
	infos := make([]*genericapiserver.APIGroupInfo, 0, len(others))
	for _, provider := range others {
		info, err := provider.NewRESTStorage(resources, options)
		if err != nil {
			return nil, fmt.Errorf("set up the group %s: %w", provider.GroupName(), err)
		}
		info.PrioritizedVersions = withStorage(&info)
		infos = append(infos, &info)
		all.add(&info)
	}
	if err := server.InstallAPIGroups(infos...); err != nil {
		return nil, fmt.Errorf("serve the API groups: %w", err)
	}
	// The server holds the groups until it ends, but not for their schemas:
	// those are some megabytes, and have been read.
	for _, info := range append(infos, coreInfo) {
		info.StaticOpenAPISpec = nil
	}
	return all, nil
}
