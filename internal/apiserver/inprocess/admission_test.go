package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	quota "k8s.io/apiserver/pkg/quota/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
)

// newAdmission builds a chain of upstream's plugins that tests provoke, and one of the tests' own.
func newAdmission(c *genericapiserver.Config, client kubernetes.Interface, factory informers.SharedInformerFactory) (admission.Interface, error) {
	resources := serverstorage.NewResourceConfig()
	resources.EnableVersions(corev1.SchemeGroupVersion)
	resources.DisableResources(corev1.SchemeGroupVersion.WithResource("services"), corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"))
	quotas, err := quotainstall.NewQuotaConfigurationForAdmission(factory, resources)
	if err != nil {
		return nil, err
	}
	plugins := admission.NewPlugins()
	lifecycle.Register(plugins)
	resourcequota.Register(plugins)
	plugins.Register(hookName, newHook)
	names := []string{lifecycle.PluginName, hookName, resourcequota.PluginName}
	configs, err := admission.ReadAdmissionConfiguration(names, "", nil)
	if err != nil {
		return nil, err
	}
	return plugins.NewFromPlugins(names, configs, admission.PluginInitializers{
		initializer.New(client, nil, factory, c.Authorization.Authorizer, c.FeatureGate, c.EffectiveVersion, c.DrainedNotify(), nil),
		quotaInitializer{quotas},
	}, admission.Decorators{})
}

// quotaInitializer gives the quota plugin its evaluators.
type quotaInitializer struct{ quota.Configuration }

func (q quotaInitializer) Initialize(plugin admission.Interface) {
	if wants, ok := plugin.(initializer.WantsQuotaConfiguration); ok {
		wants.SetQuotaConfiguration(q.Configuration)
	}
}

// The hook plugin does what an object's annotations ask for.
const (
	hookName = "TestHook"

	// hookTell has the mutating side write down what it was told about the request.
	hookTell = "test.errand.dev/tell"
	// hookDeny has the validating side refuse, with the value as message.
	hookDeny = "test.errand.dev/deny"
	// hookKeep has the validating side refuse deletion, with the value as message.
	hookKeep = "test.errand.dev/keep"
	// hookPanic has the validating side panic with the value.
	hookPanic = "test.errand.dev/panic"
)

type hook struct{ *admission.Handler }

func newHook(io.Reader) (admission.Interface, error) {
	return hook{admission.NewHandler(admission.Create, admission.Update, admission.Delete)}, nil
}

func (hook) Admit(_ context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	m, err := meta.Accessor(a.GetObject())
	if err != nil {
		return nil //nolint:nilerr // not an object with metadata
	}
	annotations := m.GetAnnotations()
	if _, ok := annotations[hookTell]; !ok {
		return nil
	}
	gvks, _, err := o.GetObjectTyper().ObjectKinds(a.GetObject())
	if err != nil {
		return err
	}
	annotations[hookTell] = fmt.Sprintf("%s %s %s %s/%s kind=%s hub=%s dry=%t old=%t user=%s options=%s",
		a.GetOperation(), a.GetResource(), a.GetSubresource(), a.GetNamespace(), a.GetName(), a.GetKind(), gvks[0], a.IsDryRun(),
		a.GetOldObject() != nil, a.GetUserInfo().GetName(), a.GetOperationOptions().GetObjectKind().GroupVersionKind())
	return nil
}

func (hook) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	obj := a.GetObject()
	if obj == nil {
		obj = a.GetOldObject()
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil //nolint:nilerr // not an object with metadata
	}
	if message, ok := m.GetAnnotations()[hookDeny]; ok {
		return admission.NewForbidden(a, errors.New(message))
	}
	if message, ok := m.GetAnnotations()[hookKeep]; ok && a.GetOperation() == admission.Delete {
		return admission.NewForbidden(a, errors.New(message))
	}
	if message, ok := m.GetAnnotations()[hookPanic]; ok {
		panic(message)
	}
	return nil
}
