package apiserver

import (
	"context"
	"io"

	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/scheduling"
	schedulinginformers "k8s.io/client-go/informers/scheduling/v1"
	"k8s.io/client-go/kubernetes"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	podpriority "k8s.io/kubernetes/plugin/pkg/admission/priority"
)

// priorityAdmission is upstream's, but for a pod that names a PriorityClass which was made a moment ago, as both are by
// one kubectl apply: upstream refuses it until its cache has heard of the class. Here the API is asked, as other plugins of
// upstream's do.
type priorityAdmission struct {
	*podpriority.Plugin
	client kubernetes.Interface
}

func registerPriority(plugins *admission.Plugins) {
	plugins.Register(podpriority.PluginName, func(io.Reader) (admission.Interface, error) {
		return &priorityAdmission{Plugin: podpriority.NewPlugin()}, nil
	})
}

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (p *priorityAdmission) SetExternalKubeClientSet(client kubernetes.Interface) {
	p.client = client
	p.Plugin.SetExternalKubeClientSet(client)
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (p *priorityAdmission) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	p.Plugin.SetExternalKubeInformerFactory(priorityFactory{f, p})
}

// The following are the way that the plugin takes to its lister.
type (
	priorityFactory struct {
		informers.SharedInformerFactory
		p *priorityAdmission
	}
	priorityGroup struct {
		scheduling.Interface
		p *priorityAdmission
	}
	priorityVersion struct {
		schedulinginformers.Interface
		p *priorityAdmission
	}
	priorityInformer struct {
		schedulinginformers.TypedPriorityClassInformer
		p *priorityAdmission
	}
	priorityLister struct {
		schedulinglisters.PriorityClassLister
		p *priorityAdmission
	}
)

func (f priorityFactory) Scheduling() scheduling.Interface {
	return priorityGroup{f.SharedInformerFactory.Scheduling(), f.p}
}

func (g priorityGroup) V1() schedulinginformers.Interface {
	return priorityVersion{g.Interface.V1(), g.p}
}

func (v priorityVersion) PriorityClasses() schedulinginformers.TypedPriorityClassInformer {
	return priorityInformer{v.Interface.PriorityClasses(), v.p}
}

func (i priorityInformer) Lister() schedulinglisters.PriorityClassLister {
	return priorityLister{i.TypedPriorityClassInformer.Lister(), i.p}
}

// Get asks the API for a class that the cache doesn't have. It has no context of the request's.
func (l priorityLister) Get(name string) (*schedulingv1.PriorityClass, error) {
	class, err := l.PriorityClassLister.Get(name)
	if apierrors.IsNotFound(err) {
		return l.p.client.SchedulingV1().PriorityClasses().Get(context.Background(), name, metav1.GetOptions{})
	}
	return class, err
}
