package apiserver

import (
	"context"
	"errors"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// with returns a client of the shared server with no credentials but a token.
func withToken(t *testing.T, token string) kubernetes.Interface {
	config := restclient.AnonymousClientConfig(shared.config)
	config.BearerToken = token
	return clientFor(t, config)
}

func requestToken(t *testing.T, ns string, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	request, err := shared.client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default",
		&authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

func TestAnonymousSeesOnlyProbesAndVersion(t *testing.T) {
	rest := withToken(t, "").Discovery().RESTClient()
	for path, allowed := range map[string]bool{
		"/healthz": true, "/livez": true, "/readyz": true, "/version": true,
		"/api": false, "/openapi/v2": false, "/metrics": false, "/api/v1/pods": false,
	} {
		_, err := rest.Get().AbsPath(path).DoRaw(t.Context())
		switch {
		case allowed && err != nil:
			t.Errorf("%s: %v", path, err)
		case !allowed && !apierrors.IsUnauthorized(err):
			t.Errorf("%s: got %v, want unauthorized", path, err)
		}
	}
}

func TestRBAC(t *testing.T) {
	ns := namespace(t, nil)
	client := withToken(t, requestToken(t, ns, authenticationv1.TokenRequestSpec{}))
	_, err := client.BatchV1().Jobs(ns).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Fatalf("without a role: got %v, want forbidden", err)
	}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "jobs"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: []string{"list"}}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "jobs"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "jobs"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "default"}},
	}
	if _, err := shared.client.RbacV1().Roles(ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.client.RbacV1().RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := client.BatchV1().Jobs(ns).List(t.Context(), metav1.ListOptions{})
		return err
	})
	if _, err := client.BatchV1().Jobs(ns).Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a verb outside the role: got %v, want forbidden", err)
	}
	if _, err := client.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a resource outside the role: got %v, want forbidden", err)
	}
}

// TestDefaultRoles covers kubectl auth can-i for the administrator and the
// roles that clusters come with.
func TestDefaultRoles(t *testing.T) {
	review, err := shared.client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"}},
	}, metav1.CreateOptions{})
	if err != nil || !review.Status.Allowed {
		t.Errorf("the administrator may not do everything: %+v, %v", review, err)
	}
	for _, name := range []string{"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user"} {
		if _, err := shared.client.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	roles, err := shared.client.RbacV1().Roles(metav1.NamespaceSystem).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(roles.Items) == 0 {
		t.Errorf("no default roles in kube-system: %v", err)
	}
}

func TestTokens(t *testing.T) {
	ns := namespace(t, nil)
	whoAmI := func(token string) (string, error) {
		review, err := withToken(t, token).AuthenticationV1().SelfSubjectReviews().Create(
			t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return review.Status.UserInfo.Username, nil
	}
	token := requestToken(t, ns, authenticationv1.TokenRequestSpec{})
	// Every authenticated user may ask who it is: a default binding.
	if name, err := whoAmI(token); err != nil || name != "system:serviceaccount:"+ns+":default" {
		t.Errorf("token speaks for %q, %v", name, err)
	}
	if _, err := whoAmI(token + "x"); !apierrors.IsUnauthorized(err) {
		t.Errorf("a forged token: got %v, want unauthorized", err)
	}
	other := requestToken(t, ns, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}})
	if _, err := whoAmI(other); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token for another audience: got %v, want unauthorized", err)
	}
	review, err := shared.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: other, Audiences: []string{"vault"}},
	}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated {
		t.Errorf("TokenReview for its own audience: %+v, %v", review.Status, err)
	}
}

func TestTokenEndsWithThePodItIsBoundTo(t *testing.T) {
	ns := namespace(t, nil)
	var pod *corev1.Pod
	eventually(t, func() (err error) {
		pod, err = shared.client.CoreV1().Pods(ns).Create(t.Context(), makePod("p"), metav1.CreateOptions{})
		return err
	})
	token := requestToken(t, ns, authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	})
	ask := func() error {
		_, err := withToken(t, token).AuthenticationV1().SelfSubjectReviews().Create(
			t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	err := shared.client.CoreV1().Pods(ns).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(); !apierrors.IsUnauthorized(err) {
		t.Errorf("after the pod's deletion: got %v, want unauthorized", err)
	}
}

func TestNoTokenSecretIsMadeForServiceAccounts(t *testing.T) {
	ns := namespace(t, nil)
	secrets, err := shared.client.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(secrets.Items) != 0 {
		t.Errorf("%d secrets, %v", len(secrets.Items), err)
	}
}

func TestStrangersCertificateIsRefused(t *testing.T) {
	stranger, stop := startServer(t, Config{DataDir: t.TempDir()})
	defer stop()
	config := restclient.CopyConfig(shared.config)
	config.CertData, config.KeyData = stranger.certs.Admin()
	_, err := clientFor(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("got %v, want unauthorized", err)
	}
	// And a kubeconfig of another errand doesn't trust this one.
	config = restclient.CopyConfig(shared.config)
	config.CAData = stranger.CA()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = clientFor(t, config).CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an error about the certificate", err)
	}
}
