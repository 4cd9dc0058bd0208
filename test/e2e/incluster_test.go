//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// buildInCluster compiles the program that pods run, once.
var buildInCluster = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(scratch, "in")
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "incluster"), "./incluster").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("compile the program that pods run: %w\n%s", err, out)
	}
	return dir, nil
})

// inCluster is the rest of a pod's spec whose one container runs a shell's
// script. The program is /in/incluster, kubectl /bin-of-host/kubectl.
func inCluster(t *testing.T, script string, spec ...string) string {
	t.Helper()
	dir, err := buildInCluster()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
  %s
  containers:
  - name: work
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, %q]
    volumeMounts: [{name: in, mountPath: /in}, {name: host, mountPath: /bin-of-host}]
  volumes:
  - {name: in, hostPath: {path: %q, type: Directory}}
  - {name: host, hostPath: {path: %q, type: Directory}}
`, strings.Join(spec, "\n  "), script, dir, bin)
}

// rights of the service account "worker".
const rights = `apiVersion: v1
kind: ServiceAccount
metadata: {name: worker}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: worker}
rules:
- {apiGroups: [""], resources: [pods, configmaps], verbs: [get, list, watch, patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: worker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: worker}
subjects: [{kind: ServiceAccount, name: worker}]
`

const worker = "serviceAccountName: worker"

// Programs in pods find the API as on any cluster, and may do what RBAC says.
func TestPodsReachTheAPI(t *testing.T) {
	e := start(t)
	e.apply(rights)
	const (
		byName    = "/in/incluster -host https://kubernetes.default.svc list"
		hostNet   = "hostNetwork: true"
		forbidden = `User "system:serviceaccount:default:default" cannot list resource "pods"`
	)
	for _, c := range []struct {
		name, script string
		spec         []string
		want         string
	}{
		{"allowed", "/in/incluster list", []string{worker}, "allowed"},
		{"forbidden", "/in/incluster list || true", nil, forbidden},
		{"by-name", byName, []string{worker}, "by-name"},
		{"by-full-name", "/in/incluster -host https://kubernetes.default.svc.cluster.local:443 list", []string{worker}, "by-full-name"},
		{"on-host", "/in/incluster list", []string{worker, hostNet}, "on-host"},
		{"on-host-forbidden", "/in/incluster list || true", []string{hostNet}, forbidden},
		{"on-host-by-name", byName, []string{worker, hostNet, "dnsPolicy: ClusterFirstWithHostNet"}, "on-host-by-name"},
		{"kubectl", "/bin-of-host/kubectl get pods", []string{worker}, "kubectl "},
		{"no-links", "/in/incluster list", []string{worker, "enableServiceLinks: false"}, "no-links"},
		{"no-token", "/in/incluster list || true", []string{worker, "automountServiceAccountToken: false"}, "serviceaccount/token: no such file"},
		{"nobody", "/in/incluster -anonymous list || true", []string{worker}, "Unauthorized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := e.with(t)
			if got := e.runPod(c.name, inCluster(t, c.script, c.spec...)); !strings.Contains(got, c.want) {
				t.Errorf("want %q in what it printed:\n%s", c.want, got)
			}
		})
	}
	address := e.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	got := e.runPod("env", inCluster(t, "env | grep ^KUBERNETES_ | sort"))
	wantLines(t, got, strings.Join([]string{
		"KUBERNETES_PORT=tcp://" + address + ":443",
		"KUBERNETES_PORT_443_TCP=tcp://" + address + ":443",
		"KUBERNETES_PORT_443_TCP_ADDR=" + address,
		"KUBERNETES_PORT_443_TCP_PORT=443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp",
		"KUBERNETES_SERVICE_HOST=" + address,
		"KUBERNETES_SERVICE_PORT=443",
		"KUBERNETES_SERVICE_PORT_HTTPS=443",
	}, "\n"))
}

// A program in a pod goes on after errand was killed and has come back, at
// another port even; and of two that elect a leader the second takes over.
func TestProgramsInPodsGoOn(t *testing.T) {
	e := start(t)
	e.apply(rights)
	e.applyPod("greets", inCluster(t, "exec /in/incluster greet", worker))
	e.applyPod("greets-on-host", inCluster(t, "exec /in/incluster greet", worker, "hostNetwork: true"))
	const lead = "exec /in/incluster lead"
	e.applyPod("lead-1", inCluster(t, lead, worker))
	greeted := func(name string) {
		e.kubectl("create", "configmap", name)
		e.wait("jsonpath={.metadata.labels.greeted}=yes", "configmap/"+name)
	}
	greeted("before")
	e.kubectl("delete", "pod", "greets-on-host")
	e.wait("jsonpath={.spec.holderIdentity}=lead-1", "lease/lead")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.start()
	greeted("after")
	e.applyPod("lead-2", inCluster(t, lead, worker))
	e.wait("condition=Ready", "pod/lead-2")
	e.wait("jsonpath={.spec.holderIdentity}=lead-1", "lease/lead")
	e.kubectl("delete", "pod", "lead-1", "--grace-period=30")
	e.wait("jsonpath={.spec.holderIdentity}=lead-2", "lease/lead")
	for _, pod := range []string{"greets", "lead-2"} {
		if s := e.podStatus(pod); s.ContainerStatuses[0].RestartCount != 0 || s.ContainerStatuses[0].State.Running == nil {
			t.Errorf("%s didn't go on: %+v", pod, s.ContainerStatuses[0])
		}
	}
}

// Where the API listens on all addresses, pods reach it there by the same name.
func TestPodsReachTheAPIOnAllAddresses(t *testing.T) {
	e := start(t, "--listen", "0.0.0.0:0")
	e.apply(rights)
	for name, spec := range map[string][]string{"pod": {worker}, "host": {worker, "hostNetwork: true"}} {
		if got := e.runPod(name, inCluster(t, "/in/incluster list", spec...)); !strings.Contains(got, name) {
			t.Errorf("%s: it printed\n%s", name, got)
		}
	}
}

// Two errands on one machine have an API each, for pods with the host's network
// as well.
func TestEachPodReachesItsOwnAPI(t *testing.T) {
	for name, cidr := range map[string]string{"one": "198.18.202.0/24", "two": "198.18.203.0/24"} {
		e := start(t, "--pod-cidr", cidr)
		e.apply(rights)
		defer func() {
			for kind, spec := range map[string][]string{"pod": {worker}, "host": {worker, "hostNetwork: true"}} {
				if got := e.runPod(name+"-"+kind, inCluster(t, "/in/incluster list", spec...)); !strings.Contains(got, name) {
					t.Errorf("%s: it printed\n%s", name, got)
				}
			}
		}()
	}
}

// With the flag pods don't reach the API, and nothing says that they do. What an
// errand without it has put up goes.
func TestWithoutKubernetesService(t *testing.T) {
	e := start(t)
	e.apply(rights)
	address := e.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.cfg.Args = append(e.cfg.Args, "--kubernetes-service=false")
	e.start()
	_, err := e.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the Service: %v, want it gone", err)
	}
	got := e.runPod("asks", inCluster(t, "env | grep KUBERNETES_; /in/incluster list || true; nslookup kubernetes.default.svc.cluster.local || true; "+
		"nc -w 5 "+address+" 443 </dev/null; echo nc ended with $?", worker))
	for _, want := range []string{"unable to load in-cluster configuration", "NXDOMAIN", "nc ended with 1"} {
		if !strings.Contains(got, want) || strings.Contains(got, "KUBERNETES_SERVICE_HOST=") {
			t.Errorf("want %q in what it printed:\n%s", want, got)
		}
	}
}
