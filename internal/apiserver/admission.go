package apiserver

import (
	"fmt"
	"net/url"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	admissionmetrics "k8s.io/apiserver/pkg/admission/metrics"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	controlplaneadmission "k8s.io/kubernetes/pkg/controlplane/apiserver/admission"
	"k8s.io/kubernetes/pkg/kubeapiserver/admission/exclusion"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
	"k8s.io/kubernetes/plugin/pkg/admission/defaulttolerationseconds"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/kubernetes/plugin/pkg/admission/podresize"
	podpriority "k8s.io/kubernetes/plugin/pkg/admission/priority"
	"k8s.io/kubernetes/plugin/pkg/admission/runtimeclass"
	"k8s.io/kubernetes/plugin/pkg/admission/security/podsecurity"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/persistentvolume/resize"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/storageclass/setdefault"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/storageobjectinuseprotection"
)

// admissionPlugins are those of a default kube-apiserver that concern what we
// serve, in its order.
func admissionPlugins(podNames bool, provisioner string) (names []string, plugins *admission.Plugins) {
	plugins = admission.NewPlugins()
	for _, register := range []func(*admission.Plugins){
		lifecycle.Register, limitranger.Register, serviceaccount.Register, podsecurity.Register, registerPriority,
		defaulttolerationseconds.Register, setdefault.Register, storageobjectinuseprotection.Register, resize.Register,
		runtimeclass.Register, podresize.Register, registerServiceNotice(podNames), registerSchedulerNotice, registerVolumeGrowth(provisioner), registerJobAnnotations,
		mutating.Register, mutatingwebhook.Register, validating.Register, validatingwebhook.Register, resourcequota.Register,
	} {
		register(plugins)
	}
	return []string{
		lifecycle.PluginName,
		limitranger.PluginName,
		serviceaccount.PluginName,
		podsecurity.PluginName,
		podpriority.PluginName,
		defaulttolerationseconds.PluginName,
		setdefault.PluginName,
		storageobjectinuseprotection.PluginName,
		resize.PluginName,
		runtimeclass.PluginName,
		podresize.PluginName,
		serviceNoticeName,
		schedulerNoticeName,
		volumeGrowthName,
		jobAnnotationsName,
		mutating.PluginName,
		mutatingwebhook.PluginName,
		validating.PluginName,
		validatingwebhook.PluginName,
		resourcequota.PluginName,
	}, plugins
}

// newAdmission builds the chain. generic must carry everything but the chain.
func newAdmission(cfg *Config, generic *genericapiserver.Config, resources serverstorage.APIResourceConfigSource, factory informers.SharedInformerFactory, client kubernetes.Interface) (admission.Interface, error) {
	dynamicClient, err := dynamic.NewForConfig(generic.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	quotas, err := quotainstall.NewQuotaConfigurationForAdmission(factory, resources)
	if err != nil {
		return nil, err
	}
	names, plugins := admissionPlugins(cfg.PodNames, cfg.Provisioner)
	configs, err := admission.ReadAdmissionConfiguration(names, "", nil)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	chain, err := plugins.NewFromPlugins(names, configs, admission.PluginInitializers{
		initializer.NewAPIServerIDInitializer(generic.APIServerID),
		initializer.New(client, dynamicClient, factory, generic.Authorization.Authorizer, generic.FeatureGate,
			generic.EffectiveVersion, generic.DrainedNotify(), mapper),
		webhookinit.NewPluginInitializer(
			webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, generic.LoopbackClientConfig, generic.TracerProvider),
			unroutedServices{}),
		controlplaneadmission.NewPluginInitializer(quotas, exclusion.Excluded()),
	}, admission.Decorators{admission.DecoratorFunc(admissionmetrics.WithControllerMetrics)})
	if err != nil {
		return nil, fmt.Errorf("set up admission: %w", err)
	}
	return admissionmetrics.WithStepMetrics(chain), nil
}

// unroutedServices refuses webhooks that name a Service.
type unroutedServices struct{}

// ResolveEndpoint implements webhook.ServiceResolver.
func (unroutedServices) ResolveEndpoint(namespace, name string, _ int32) (*url.URL, error) {
	return nil, fmt.Errorf("errand doesn't route to Services, so that the webhook's Service %s/%s can't be reached: give the webhook a clientConfig.url", namespace, name)
}
