package apiserver

import (
	"strings"
	"testing"

	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/apis/core"
	podpriority "k8s.io/kubernetes/plugin/pkg/admission/priority"
)

// No pod is refused because a cache hasn't heard of its class yet: here it never does.
func TestPodsOfNewPriorityClasses(t *testing.T) {
	client := fake.NewClientset(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Value: 7})
	plugins := admission.NewPlugins()
	registerPriority(plugins)
	plugin, err := plugins.InitPlugin(podpriority.PluginName, nil,
		initializer.New(client, nil, informers.NewSharedInformerFactory(client, 0), nil, nil, nil, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	admit := func(class string) (*core.Pod, error) {
		pod := &core.Pod{Spec: core.PodSpec{PriorityClassName: class}}
		a := admission.NewAttributesRecord(pod, nil, core.Kind("Pod").WithVersion("version"), "default", "p",
			core.Resource("pods").WithVersion("version"), "", admission.Create, nil, false, nil)
		mutator, ok := plugin.(admission.MutationInterface)
		if !ok {
			t.Fatalf("%T doesn't mutate", plugin)
		}
		return pod, mutator.Admit(t.Context(), a, nil)
	}
	if pod, err := admit("new"); err != nil || *pod.Spec.Priority != 7 {
		t.Errorf("a new class: priority %v, %v", pod.Spec.Priority, err)
	}
	if _, err := admit("none"); err == nil || !strings.Contains(err.Error(), "no PriorityClass with name none was found") {
		t.Errorf("a class that there isn't: %v", err)
	}
}
