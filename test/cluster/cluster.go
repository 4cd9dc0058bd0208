package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
)

// startTimeout bounds each start and end: far more than they take, so that only a hang meets it.
const startTimeout = 2 * time.Minute

// Cluster is a control plane: etcd and an API server, at first.
type Cluster struct {
	// Client is an administrator's, without a rate limit.
	Client kubernetes.Interface

	bin, dir  string
	ca        *authority
	server    string // the API server's URL
	port      int
	api       *Process
	store     *Process
	mu        sync.Mutex
	processes []*Process // all that ever ran, oldest first
	// controllerConfig is the kubeconfig of errand controller, once it has its rights.
	controllerConfig string
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

// Start runs etcd and an API server. bin is the folder of errand-controller, and of cluster/ with upstream's programs (`make cluster-programs`);
// dir must be there, and is for the cluster alone.
func Start(ctx context.Context, bin, dir string) (*Cluster, error) {
	c := &Cluster{bin: bin, dir: dir}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.port, err = freePort(); err != nil {
		return err
	}
	c.server = "https://127.0.0.1:" + strconv.Itoa(c.port)
	if c.ca, err = newAuthority(c.file("pki")); err != nil {
		return err
	}
	if err := errors.Join(c.ca.issueServer(), writePolicy(c.file("audit-policy.json"))); err != nil {
		return err
	}
	kubeconfig, err := c.ca.issueClient(c.server, "admin", "system:masters")
	if err != nil {
		return err
	}
	if c.Client, err = unlimited(kubeconfig); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.StartAPI(ctx); err != nil {
		return err
	}
	return c.awaitNamespace(ctx)
}

func unlimited(kubeconfig string) (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1
	// Protobuf as kubelets do, and watches unpacked, so that this client costs the API server little.
	cfg.DisableCompression = true
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(cfg)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// run starts one of upstream's programs.
func (c *Cluster) run(program string, args ...string) (*Process, error) {
	path := filepath.Join(c.bin, "cluster", program)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: run make cluster-programs", err)
	}
	return c.keep(start(c.dir, path, args...))
}

func (c *Cluster) keep(p *Process, err error) (*Process, error) {
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes = append(c.processes, p)
	return p, nil
}

func (c *Cluster) socket(name string) string { return "unix://" + c.file(name) }

func (c *Cluster) startEtcd(ctx context.Context) error {
	p, err := c.run("etcd", "--data-dir", c.file("etcd"), "--listen-client-urls", c.socket("etcd.sock"), "--advertise-client-urls", c.socket("etcd.sock"),
		"--listen-peer-urls", c.socket("peer.sock"), "--initial-advertise-peer-urls", c.socket("peer.sock"),
		"--initial-cluster", "default="+c.socket("peer.sock"), "--quota-backend-bytes", strconv.Itoa(8<<30), "--log-level", "warn")
	if err != nil {
		return err
	}
	c.store = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.awaitReady(ctx)
}

// Store is the etcd.
func (c *Cluster) Store() *Process { return c.store }

// StartAPI runs the API server, at first or again after its end, and returns once it listens.
func (c *Cluster) StartAPI(ctx context.Context) error {
	p, err := c.run("kube-apiserver", "--etcd-servers", c.socket("etcd.sock"), "--bind-address=127.0.0.1", "--secure-port", strconv.Itoa(c.port),
		"--endpoint-reconciler-type=none", // it would have the loopback address among a Service's, where none may be
		"--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24",
		"--client-ca-file", c.ca.file("ca.crt"), "--tls-cert-file", c.ca.file("server.crt"), "--tls-private-key-file", c.ca.file("server.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file", c.ca.file("tokens.key"),
		"--service-account-signing-key-file", c.ca.file("tokens.key"),
		"--audit-policy-file", c.file("audit-policy.json"), "--audit-log-path", c.file("audit.log"), "--audit-log-maxsize=0")
	if err != nil {
		return err
	}
	c.api = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.awaitReady(ctx)
}

// API is the API server that was started last.
func (c *Cluster) API() *Process { return c.api }

// awaitNamespace returns once the API server has made the default namespace.
func (c *Cluster) awaitNamespace(ctx context.Context) error {
	namespaces := cache.NewListWatchFromClient(c.Client.CoreV1().RESTClient(), "namespaces", "", named("default"))
	return until(ctx, namespaces, &corev1.Namespace{}, "the namespace default")
}

// named selects an object by its name.
func named(name string) fields.Selector {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, name)
}

// until returns once there is an object.
func until(ctx context.Context, objects cache.ListerWatcher, example runtime.Object, what string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := watchtools.UntilWithSync(ctx, objects, example, nil, func(ev watch.Event) (bool, error) {
		return ev.Type == watch.Added || ev.Type == watch.Modified, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", what, err)
	}
	return nil
}

// StartManager runs kube-controller-manager with those controllers (its --controllers), and further arguments. It has no lease.
func (c *Cluster) StartManager(controllers string, args ...string) (*Process, error) {
	kubeconfig, err := c.ca.issueClient(c.server, "system:kube-controller-manager")
	if err != nil {
		return nil, err
	}
	args = append([]string{
		"--kubeconfig", kubeconfig, "--controllers", controllers, "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials",
		"--service-account-private-key-file", c.ca.file("tokens.key"), "--root-ca-file", c.ca.file("ca.crt"),
	}, args...)
	return c.run("kube-controller-manager", args...)
}

// AwaitAccount returns once a namespace has its service account, without which no pod can be made: kube-controller-manager acts.
func (c *Cluster) AwaitAccount(ctx context.Context, namespace string) error {
	accounts := cache.NewListWatchFromClient(c.Client.CoreV1().RESTClient(), "serviceaccounts", namespace, named("default"))
	return until(ctx, accounts, &corev1.ServiceAccount{}, "the service account of namespace "+namespace)
}

// Stop ends all that runs, what started last first.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for i := len(c.processes) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		errs = append(errs, c.processes[i].Stop(ctx))
		cancel()
	}
	c.processes = nil
	return errors.Join(errs...)
}

// Said is what everything printed, for those who look for what went wrong.
func (c *Cluster) Said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var said string
	for _, p := range c.processes {
		said += fmt.Sprintf("--- %s (pid %d) said:\n%s", p.Name, p.PID(), p.Said)
	}
	return said
}
