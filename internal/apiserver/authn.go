package apiserver

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"errand.dev/errand/internal/apiserver/pki"
)

// tokenIssuer names errand in service account tokens and is their default
// audience. It is Kubernetes' usual value, so that verifiers need no change.
const tokenIssuer = "https://kubernetes.default.svc.cluster.local"

// anonymousPaths may be read without credentials: what a probe and a client
// that looks for its version need.
func anonymousPaths() []apiserverapi.AnonymousAuthCondition {
	return []apiserverapi.AnonymousAuthCondition{
		{Path: "/healthz"}, {Path: "/livez"}, {Path: "/readyz"}, {Path: "/version"},
	}
}

// newAuthenticator lets in holders of a client certificate or of a service
// account token. Tokens are looked up anew at each request, so that one ends
// with the object it is bound to.
func newAuthenticator(certs *pki.Store, keys serviceaccount.PublicKeysGetter, audiences authenticator.Audiences, client kubernetes.Interface) (authenticator.Request, error) {
	getter := tokenObjects{client: client}
	bound := serviceaccount.JWTTokenAuthenticator([]string{tokenIssuer}, keys, audiences, serviceaccount.NewValidator(getter))
	legacy, err := serviceaccount.NewLegacyValidator(true, getter, client.CoreV1())
	if err != nil {
		return nil, fmt.Errorf("set up tokens kept in Secrets: %w", err)
	}
	tokens := tokenunion.New(
		serviceaccount.JWTTokenAuthenticator([]string{serviceaccount.LegacyIssuer}, keys, audiences, legacy),
		bound,
	)
	known := union.New(
		x509.NewDynamic(certs.Authority().VerifyOptions, x509.CommonNameUserConversion),
		bearertoken.New(tokens),
		websocket.NewProtocolAuthenticator(tokens),
	)
	// A bad credential is an error, not an anonymous user.
	return union.NewFailOnError(
		group.NewAuthenticatedGroupAdder(known),
		anonymous.NewAuthenticator(anonymousPaths()),
	), nil
}

// tokenObjects reads what a token is bound to. The answers come from the watch
// cache: a read costs less than keeping a copy of every pod and Secret.
type tokenObjects struct {
	client kubernetes.Interface
}

var _ serviceaccount.ServiceAccountTokenGetter = tokenObjects{}

func (t tokenObjects) GetServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return t.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (t tokenObjects) GetPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return t.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (t tokenObjects) GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return t.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (t tokenObjects) GetNode(ctx context.Context, name string) (*corev1.Node, error) {
	return t.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}

func (t tokenObjects) GetValidatingWebhookConfiguration(ctx context.Context, name string) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	return t.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
}

func (t tokenObjects) GetMutatingWebhookConfiguration(ctx context.Context, name string) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	return t.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
}
