package apiserver

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	restclient "k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

func createPod(t *testing.T, ns string, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	return shared.client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
}

// mustCreatePod waits for admission to see the namespace's service account.
func mustCreatePod(t *testing.T, ns string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	var made *corev1.Pod
	eventually(t, func() (err error) {
		made, err = createPod(t, ns, pod)
		return err
	})
	return made
}

// wantRefused tries until the pod is refused with the text: admission sees what
// a test just created a moment later.
func wantRefused(t *testing.T, ns string, pod *corev1.Pod, text string) {
	t.Helper()
	eventually(t, func() error {
		made, err := createPod(t, ns, pod)
		if err == nil {
			_ = shared.client.CoreV1().Pods(ns).Delete(t.Context(), made.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
			return errors.New("the pod was accepted")
		}
		if !strings.Contains(err.Error(), text) {
			return fmt.Errorf("refused with %q, want %q", err, text)
		}
		return nil
	})
}

func TestPodsGetWhatAdmissionAdds(t *testing.T) {
	ns := namespace(t, nil)
	pod := mustCreatePod(t, ns, makePod("p"))
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Volumes) != 1 || pod.Spec.Volumes[0].Projected == nil {
		t.Errorf("service account %q, volumes %v", pod.Spec.ServiceAccountName, pod.Spec.Volumes)
	}
	if len(pod.Spec.Tolerations) != 2 || pod.Spec.Priority == nil || *pod.Spec.Priority != 0 {
		t.Errorf("tolerations %v, priority %v", pod.Spec.Tolerations, pod.Spec.Priority)
	}
	critical := makePod("critical")
	critical.Spec.PriorityClassName = "system-node-critical"
	if pod := mustCreatePod(t, ns, critical); *pod.Spec.Priority != 2000001000 {
		t.Errorf("system-node-critical gave priority %d", *pod.Spec.Priority)
	}
}

func TestNamespaceLifecycle(t *testing.T) {
	_, err := createPod(t, "nowhere", makePod("p"))
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "nowhere" not found`) {
		t.Errorf("got %v", err)
	}
	err = shared.client.CoreV1().Namespaces().Delete(t.Context(), "default", metav1.DeleteOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("deleting the default namespace: got %v, want forbidden", err)
	}
}

func TestPodSecurity(t *testing.T) {
	ns := namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
	mustCreatePod(t, ns, makePod("plain"))
	privileged := makePod("privileged")
	privileged.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	wantRefused(t, ns, privileged, `violates PodSecurity "baseline:latest": privileged`)
	// Without a label nothing is enforced: a Job may be privileged.
	mustCreatePod(t, namespace(t, nil), privileged)
}

func TestLimitRanger(t *testing.T) {
	ns := namespace(t, nil)
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "limits"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type:    corev1.LimitTypeContainer,
			Max:     corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Mi")},
			Default: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("50Mi")},
		}}},
	}
	if _, err := shared.client.CoreV1().LimitRanges(ns).Create(t.Context(), limits, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	big := makePod("big")
	big.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	wantRefused(t, ns, big, "maximum memory usage per Container is 100Mi, but limit is 1Gi")
	pod := mustCreatePod(t, ns, makePod("small"))
	if got := pod.Spec.Containers[0].Resources.Limits.Memory().String(); got != "50Mi" {
		t.Errorf("default limit is %s, want 50Mi", got)
	}
}

func TestResourceQuota(t *testing.T) {
	ns := namespace(t, nil)
	hard := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
	quotas := shared.client.CoreV1().ResourceQuotas(ns)
	quota, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// On a full errand the quota controller sums up what is used.
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}}
	if _, err := quotas.UpdateStatus(t.Context(), quota, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	mustCreatePod(t, ns, makePod("first"))
	wantRefused(t, ns, makePod("second"), "exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1")
}

// onlyIn restricts a policy or webhook to one namespace: the server is shared.
func onlyIn(ns string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: ns}}
}

func podCreations() admissionregistrationv1.RuleWithOperations {
	return admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
	}
}

func matchPods(ns string) *admissionregistrationv1.MatchResources {
	return &admissionregistrationv1.MatchResources{
		NamespaceSelector: onlyIn(ns),
		ResourceRules:     []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: podCreations()}},
	}
}

func TestValidatingAdmissionPolicy(t *testing.T) {
	ns := namespace(t, nil)
	validatePods(t, ns, "object.metadata.name != 'forbidden'", "that name is taken")
	wantRefused(t, ns, makePod("forbidden"), "that name is taken")
	mustCreatePod(t, ns, makePod("allowed"))
}

// A policy tells what a component does for others from what an administrator
// does himself.
func TestComponentsAreNoAdministrators(t *testing.T) {
	ns := namespace(t, nil)
	validatePods(t, ns, "'system:masters' in request.userInfo.groups", "administrators only")
	engine, err := shared.server.ClientAs(serviceaccount.UserInfo("kube-system", "job-controller", ""), 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := engine.CoreV1().Pods(ns).Create(t.Context(), makePod("by-a-job"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "administrators only") {
			return fmt.Errorf("the Job engine's pod: %v, want it refused", err)
		}
		return nil
	})
	mustCreatePod(t, ns, makePod("by-an-administrator"))
}

// validatePods puts a policy on the pods of a namespace.
func validatePods(t *testing.T, ns, expression, message string) {
	t.Helper()
	policies := shared.client.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: matchPods(ns),
			Validations:      []admissionregistrationv1.Validation{{Expression: expression, Message: message}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: ns, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMutatingAdmissionPolicy(t *testing.T) {
	ns := namespace(t, nil)
	policies := shared.client.AdmissionregistrationV1()
	_, err := policies.MutatingAdmissionPolicies().Create(t.Context(), &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			MatchConstraints:   matchPods(ns),
			ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			Mutations: []admissionregistrationv1.Mutation{{
				PatchType: admissionregistrationv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{
					Expression: `Object{metadata: Object.metadata{labels: {"touched": "yes"}}}`,
				},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = policies.MutatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Spec:       admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: ns},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	eventually(t, func() error {
		n++
		pod := mustCreatePod(t, ns, makePod(fmt.Sprintf("p%d", n)))
		if pod.Labels["touched"] != "yes" {
			return fmt.Errorf("labels are %v", pod.Labels)
		}
		return nil
	})
}

// reviewPod is a webhook that denies pods named denied at /deny and labels them
// at /mutate.
func reviewPod(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if r.URL.Path == "/deny" && review.Request.Name == "denied" {
		review.Response.Allowed = false
		review.Response.Result = &metav1.Status{Message: "the webhook says no"}
	}
	if r.URL.Path == "/mutate" {
		review.Response.PatchType = ptr.To(admissionv1.PatchTypeJSONPatch)
		review.Response.Patch = []byte(`[{"op":"add","path":"/metadata/labels","value":{"hooked":"yes"}}]`)
	}
	_ = json.NewEncoder(w).Encode(review) // the server under test reports what it missed
}

func TestWebhooks(t *testing.T) {
	ns := namespace(t, nil)
	hook := httptest.NewTLSServer(http.HandlerFunc(reviewPod))
	defer hook.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	client := admissionregistrationv1.WebhookClientConfig{URL: ptr.To(hook.URL + "/deny"), CABundle: ca}
	configs := shared.client.AdmissionregistrationV1()
	_, err := configs.ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "deny.errand.dev", ClientConfig: client, NamespaceSelector: onlyIn(ns),
			Rules:                   []admissionregistrationv1.RuleWithOperations{podCreations()},
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client.URL = ptr.To(hook.URL + "/mutate")
	_, err = configs.MutatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mutate.errand.dev", ClientConfig: client, NamespaceSelector: onlyIn(ns),
			Rules:                   []admissionregistrationv1.RuleWithOperations{podCreations()},
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, ns, makePod("denied"), "the webhook says no")
	n := 0
	eventually(t, func() error {
		n++
		if pod := mustCreatePod(t, ns, makePod(fmt.Sprintf("p%d", n))); pod.Labels["hooked"] != "yes" {
			return fmt.Errorf("labels are %v", pod.Labels)
		}
		return nil
	})
	for _, remove := range []error{
		configs.ValidatingWebhookConfigurations().Delete(t.Context(), ns, metav1.DeleteOptions{}),
		configs.MutatingWebhookConfigurations().Delete(t.Context(), ns, metav1.DeleteOptions{}),
	} {
		if remove != nil {
			t.Error(remove)
		}
	}
}

func TestServicesAreStoredWithAWarning(t *testing.T) {
	ns := namespace(t, nil)
	warnings := &recorder{}
	config := restclient.CopyConfig(shared.config)
	config.WarningHandler = warnings
	services := clientFor(t, config).CoreV1().Services(ns)
	made, err := services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Spec.ClusterIP, "10.96.") {
		t.Errorf("cluster IP is %q", made.Spec.ClusterIP)
	}
	if len(warnings.texts) != 1 || !strings.Contains(warnings.texts[0], "by address only") {
		t.Errorf("warnings %q", warnings.texts)
	}
	_, err = services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "t"},
		Spec:       corev1.ServiceSpec{ClusterIP: made.Spec.ClusterIP, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("the same address twice: got %v, want invalid", err)
	}
}
