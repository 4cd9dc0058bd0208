package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
)

// Who writes, by the names in the audit log.
const (
	ErrandUser   = "system:serviceaccount:errand-system:errand-controller"
	UpstreamUser = "system:serviceaccount:kube-system:job-controller"
)

// deployed are the manifests that give errand controller its rights, in deploy/controller.
var deployed = []string{"namespace.yaml", "serviceaccount.yaml", "rbac.yaml"}

// Grant gives errand controller the rights that a user gives it, by the manifests of that folder, and no others.
func (c *Cluster) Grant(ctx context.Context, manifests string) error {
	for _, name := range deployed {
		if err := c.apply(ctx, filepath.Join(manifests, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	hours := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](4 * 3600)}}
	token, err := c.Client.CoreV1().ServiceAccounts("errand-system").CreateToken(ctx, "errand-controller", hours, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	c.controllerConfig, err = c.ca.writeKubeconfig(c.server, "errand-controller", &clientcmdapi.AuthInfo{Token: token.Status.Token})
	return err
}

// paths are where the API has what the manifests name.
var paths = map[string]string{
	"Namespace":          "/api/v1/namespaces/%[2]s",
	"ServiceAccount":     "/api/v1/namespaces/%s/serviceaccounts/%s",
	"ClusterRole":        "/apis/rbac.authorization.k8s.io/v1/clusterroles/%[2]s",
	"ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/%[2]s",
	"Role":               "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/roles/%s",
	"RoleBinding":        "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/rolebindings/%s",
}

// apply applies the objects in a file.
func (c *Cluster) apply(ctx context.Context, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for d := kyaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), len(b)); ; {
		var obj unstructured.Unstructured
		if err := d.Decode(&obj); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		path, ok := paths[obj.GetKind()]
		if !ok {
			return fmt.Errorf("no path is known for a %s", obj.GetKind())
		}
		body, err := obj.MarshalJSON()
		if err != nil {
			return err
		}
		err = c.Client.Discovery().RESTClient().Patch("application/apply-patch+yaml").AbsPath(fmt.Sprintf(path, obj.GetNamespace(), obj.GetName())).
			Param("fieldManager", "cluster-test").Body(body).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", obj.GetKind(), obj.GetName(), err)
		}
	}
}

// StartController runs an errand-controller (`make controller`) with further arguments, on the lease that deploy/controller lets it have. Grant must have
// given it its rights.
func (c *Cluster) StartController(args ...string) (*Process, error) {
	args = append([]string{
		"--kubeconfig", c.controllerConfig, "--metrics-bind-address=127.0.0.1:0", "-v=2",
		"--leader-elect-resource-namespace=errand-system", "--leader-elect-resource-name=errand-controller",
	}, args...)
	return c.keep(start(c.dir, filepath.Join(c.bin, "errand-controller"), args...))
}

// AwaitController returns once an errand controller acts.
func AwaitController(ctx context.Context, p *Process) error {
	return saying(ctx, p, "errand controller has the lease")
}

// AwaitStandby returns once an errand controller has filled its caches.
func AwaitStandby(ctx context.Context, p *Process) error {
	return saying(ctx, p, "errand controller is ready")
}

// AwaitRefused returns once an errand controller has found that there is no API server.
func AwaitRefused(ctx context.Context, p *Process) error {
	return saying(ctx, p, "errand controller tries on")
}

func saying(ctx context.Context, p *Process, words string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel() // it won't say it any more
		case <-ctx.Done():
		}
	}()
	if _, err := p.Said.Await(ctx, words); err != nil {
		return fmt.Errorf("%s (pid %d): %w", p.Name, p.PID(), err)
	}
	return nil
}
