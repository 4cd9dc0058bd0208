package clusterengine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

func TestDefaultsAreValid(t *testing.T) {
	o := DefaultOptions()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	o.ManagedBy, o.Namespace = "kubernetes.io/job-controller", "team-a"
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateTellsEverything(t *testing.T) {
	o := DefaultOptions()
	o.Context = "staging"
	o.Namespace = "Not A Name"
	o.ManagedBy = "me"
	o.Lease = LeaseOptions{Namespace: "a/b", Name: "A", Duration: 1500 * time.Millisecond, RenewDeadline: 2 * time.Second, RetryPeriod: 2 * time.Second}
	o.MetricsBindAddress = "nowhere"
	o.Workers = 0
	o.QPS, o.Burst = -1, -1
	o.PodFailureBackoff = 0
	o.MaxPodFailureBackoff = -1
	err := o.Validate()
	if err == nil {
		t.Fatal("nothing was found wrong")
	}
	for _, want := range []string{
		"--context", `--namespace "Not A Name"`, `--managed-by "me"`, "--leader-elect-resource-namespace", "--leader-elect-lease-duration 1.5s",
		"--leader-elect-renew-deadline", "--leader-elect-retry-period", "--metrics-bind-address", "--workers", "--kube-api-qps", "--kube-api-burst",
		"--pod-failure-backoff", "--max-pod-failure-backoff",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not speak of %s:\n%v", want, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string // part of the error; "" for none
	}{
		"no manager":                       {func(o *Options) { o.ManagedBy = "" }, "--managed-by"},
		"a manager too long":               {func(o *Options) { o.ManagedBy = "errand.dev/" + strings.Repeat("x", 60) }, "no longer than 63"},
		"a manager that names no lease":    {func(o *Options) { o.ManagedBy = "errand.dev/My_Own" }, "--leader-elect-resource-name"},
		"the same with a name":             {func(o *Options) { o.ManagedBy, o.Lease.Name = "errand.dev/My_Own", "mine" }, ""},
		"a name that can't be":             {func(o *Options) { o.Lease.Name = "Mine" }, `--leader-elect-resource-name "Mine"`},
		"without election, no lease":       {func(o *Options) { o.LeaderElect, o.Lease = false, LeaseOptions{} }, ""},
		"no metrics":                       {func(o *Options) { o.MetricsBindAddress = "0" }, ""},
		"metrics on all addresses":         {func(o *Options) { o.MetricsBindAddress = ":8080" }, ""},
		"metrics on a host's name":         {func(o *Options) { o.MetricsBindAddress = "example.com:80" }, "must be an IP address"},
		"metrics on no port":               {func(o *Options) { o.MetricsBindAddress = "127.0.0.1:http-ish" }, "--metrics-bind-address"},
		"a burst without a rate":           {func(o *Options) { o.Burst = 3 }, "--kube-api-qps"},
		"a rate":                           {func(o *Options) { o.QPS = 0.5 }, ""},
		"a context with its kubeconfig":    {func(o *Options) { o.Context, o.Kubeconfig = "a", "b" }, ""},
		"a retry period close to renewing": {func(o *Options) { o.Lease.RetryPeriod = 9 * time.Second }, "--leader-elect-retry-period"},
	} {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions()
			tc.change(&o)
			err := o.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Validate: %v, want %q", err, tc.want)
			}
		})
	}
}

// Replicas exclude each other if they do the same work, and only then.
func TestLeaseNames(t *testing.T) {
	names := map[string]string{}
	for _, o := range []Options{
		{ManagedBy: ManagedByErrand},
		{ManagedBy: ManagedByErrand, Namespace: "a"},
		{ManagedBy: "kubernetes.io/job-controller"},
		{ManagedBy: "kubernetes.io/job-controller", Namespace: "a"},
	} {
		name := o.leaseName()
		if other, taken := names[name]; taken {
			t.Errorf("%+v and %s have the lease %s", o, other, name)
		}
		names[name] = o.ManagedBy + " in " + o.Namespace
	}
	if names["errand-controller"] == "" {
		t.Errorf("no lease has the name that deploy/controller gives rights to: %v", names)
	}
}

const twoClusters = `apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: u}}, {name: b, context: {cluster: b, user: u, namespace: elsewhere}}]
clusters: [{name: a, cluster: {server: "https://a:1"}}, {name: b, cluster: {server: "https://b:1"}}]
users: [{name: u, user: {token: t}}]
`

func TestComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(twoClusters), 0o600); err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Kubeconfig, o.Context = path, "b"
	c, err := o.Complete()
	if err != nil {
		t.Fatal(err)
	}
	if c.rest.Host != "https://b:1" || c.rest.QPS >= 0 || c.rest.ContentType != runtime.ContentTypeProtobuf || !c.rest.DisableCompression {
		t.Errorf("it reaches %s with %g requests a second in %s", c.rest.Host, c.rest.QPS, c.rest.ContentType)
	}
	if l := c.options.Lease; l.Namespace != "kube-system" || l.Name != "errand-controller" {
		t.Errorf("the lease is %s/%s", l.Namespace, l.Name)
	}
	again, err := o.Complete()
	if err != nil {
		t.Fatal(err)
	}
	if again.identity == c.identity {
		t.Errorf("two replicas on a host have the identity %s", c.identity)
	}
	o.QPS = 10
	if c, err = o.Complete(); err != nil || c.rest.QPS != 10 || c.rest.Burst < 20 {
		t.Errorf("it makes %g requests a second, %d at once: %v", c.rest.QPS, c.rest.Burst, err)
	}
}

func TestCompleteSaysWhatIsMissing(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	o := DefaultOptions()
	if _, err := o.Complete(); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("outside of a cluster: %v", err)
	}
	o.Kubeconfig = filepath.Join(t.TempDir(), "none")
	if _, err := o.Complete(); err == nil || !strings.Contains(err.Error(), o.Kubeconfig) {
		t.Errorf("without the file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(twoClusters), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Kubeconfig, o.Context = path, "c"
	if _, err := o.Complete(); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("with a context that isn't there: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Context = ""
	if _, err := o.Complete(); err == nil || !strings.Contains(err.Error(), "names no cluster") {
		t.Errorf("with an empty file: %v", err)
	}
}
