package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreValid(t *testing.T) {
	o := DefaultOptions()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateTellsEverything(t *testing.T) {
	o := DefaultOptions()
	o.Listen = "nowhere"
	o.EventTTL = 0
	o.NodeName = "Not A Name"
	o.MaxPods = 0
	o.PodMaxPids = 0
	o.PodUserIDs = "1:65536"
	o.PodCIDR = "10.0.0.0/30"
	o.Etcd = EtcdOptions{Servers: []string{"10.0.0.1"}, CertFile: "c"}
	o.Runtimes = map[string]string{"runc": "runc"}
	o.DefaultRuntime = "crun"
	o.ContainerLogMaxSize = "10 MB"
	o.ContainerLogMaxFiles = 1
	o.KeptLogsMaxSize = "-1Mi"
	o.ImageGCHighThresholdPercent = 101
	o.ImageGCLowThresholdPercent = 102
	o.ImageMinimumGCAge = -1
	o.ImageMaximumGCAge = -1
	o.ImagePullCredentialsVerificationPolicy = "Sometimes"
	o.PodFailureBackoff = 0
	err := o.Validate()
	if err == nil {
		t.Fatal("nothing was found wrong")
	}
	for _, want := range []string{"--listen", "--event-ttl 0s: must be a second or more", "--node-name", "--max-pods", "--pod-max-pids", "--pod-user-ids", "--pod-cidr", "--etcd-servers", "--etcd-keyfile", "--runtime runc", "--default-runtime", "--pod-failure-backoff", "--container-log-max-size", "--container-log-max-files", "--kept-logs-max-size -1Mi: must not be negative",
		"--image-gc-high-threshold-percent", "--image-gc-low-threshold-percent", "--image-minimum-gc-age", "--image-maximum-gc-age",
		"--image-pull-credentials-verification-policy"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not speak of %s:\n%v", want, err)
		}
	}
}

func TestPodCIDR(t *testing.T) {
	for cidr, ok := range map[string]bool{"": true, "10.57.0.0/16": true, "10.57.3.0/28": true, "1.2.3.4": false, "10.0.0.0/33": false, "10.0.0.0/29": false, "fd00::/48": false, "pods": false} {
		o := DefaultOptions()
		o.PodCIDR = cidr
		err := o.Validate()
		if (err == nil) != ok || err != nil && err.Error() != `--pod-cidr "`+cidr+`": must be an IPv4 range of /28 or wider, as ADDRESS/LENGTH, such as 10.57.0.0/16` {
			t.Errorf("%q: %v", cidr, err)
		}
	}
}

func TestTracingOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		options TracingOptions
		node    bool
		wrong   string
	}{
		"none":              {TracingOptions{SamplingRatePerMillion: 1_000_000}, false, ""},
		"a collector":       {TracingOptions{Endpoint: "localhost:4317", SamplingRatePerMillion: 1}, true, ""},
		"by a socket":       {TracingOptions{Endpoint: "unix:///run/collector.sock"}, true, ""},
		"without a port":    {TracingOptions{Endpoint: "collector"}, true, "the port is missing"},
		"an empty port":     {TracingOptions{Endpoint: "[::1]:"}, true, "the port is missing"},
		"by a name server":  {TracingOptions{Endpoint: "dns:///collector:4317"}, true, ""},
		"a page's address":  {TracingOptions{Endpoint: "http://localhost:4317"}, true, "--tracing-endpoint"},
		"more than all":     {TracingOptions{Endpoint: "localhost:4317", SamplingRatePerMillion: 1_000_001}, true, "--tracing-sampling-rate-per-million"},
		"less than none":    {TracingOptions{SamplingRatePerMillion: -1}, true, "--tracing-sampling-rate-per-million"},
		"where no pods run": {TracingOptions{Endpoint: "localhost:4317"}, false, "--tracing-endpoint needs --node"},
	} {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions()
			o.Node, o.Tracing = tc.node, tc.options
			err := o.Validate()
			if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
				t.Errorf("%v, want %q", err, tc.wrong)
			}
		})
	}
}

// What a container runtime of the user's own decides itself is refused, with what
// to do instead.
func TestValidateEndpoints(t *testing.T) {
	o := DefaultOptions()
	o.ContainerRuntimeEndpoint = "unix:///run/containerd/containerd.sock"
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if o.namesHere() {
		t.Error("names would be answered on a network that isn't errand's")
	}
	o.ContainerRuntimeEndpoint = "/run/containerd/containerd.sock"
	o.ImageServiceEndpoint = "tcp://127.0.0.1:1"
	o.Runtimes = map[string]string{"runc": "/usr/sbin/runc"}
	o.DefaultRuntime = "runc"
	o.NativeLauncher = false
	o.Shim = "/usr/bin/errand-shim"
	o.PodCIDR = "10.0.0.0/16"
	o.RegistriesConf = "/etc/containers/registries.conf"
	o.AuthFile = "/root/auth.json"
	o.SignaturePolicy = "/etc/containers/policy.json"
	err := o.Validate()
	if err == nil {
		t.Fatal("nothing was found wrong")
	}
	for _, want := range []string{
		`--container-runtime-endpoint: "/run/containerd/containerd.sock" is not`, `--image-service-endpoint: "tcp://127.0.0.1:1" is not`,
		"--runtime doesn't go with", "--default-runtime doesn't go with", "--native-launcher=false doesn't go with", "--shim doesn't go with",
		"--pod-cidr doesn't go with", "--registries-conf doesn't go with", "--authfile doesn't go with", "--signature-policy doesn't go with",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error doesn't say %q:\n%v", want, err)
		}
	}
	o = DefaultOptions()
	o.ImageServiceEndpoint = "unix:///run/containerd/containerd.sock"
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "needs --container-runtime-endpoint") {
		t.Errorf("an image service alone: %v", err)
	}
}

func TestReadFile(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml    string
		want    func(*Options)
		wantErr string
	}{
		"sets what it names": {
			yaml: "containerRuntimeEndpoint: unix:///c.sock\nimageServiceEndpoint: unix:///i.sock\nlisten: 127.0.0.1:0\npodFailureBackoff: 1s\netcd:\n  servers: [\"https://10.0.0.1:2379\"]\n",
			want: func(o *Options) {
				o.ContainerRuntimeEndpoint = "unix:///c.sock"
				o.ImageServiceEndpoint = "unix:///i.sock"
				o.Listen = "127.0.0.1:0"
				o.PodFailureBackoff = time.Second
				o.Etcd.Servers = []string{"https://10.0.0.1:2379"}
			},
		},
		"empty":         {yaml: "", want: func(*Options) {}},
		"unknown field": {yaml: "node: true\nlissen: x\n", wantErr: "line 2: field lissen not found"},
		"wrong type":    {yaml: "node: true\nmaxPods: many\n", wantErr: "line 2: cannot unmarshal"},
		"not YAML":      {yaml: "a: [", wantErr: "yaml: line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "errand.yaml")
			if err := os.WriteFile(path, []byte(tc.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			got := DefaultOptions()
			err := got.ReadFile(path)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v, want the file's name and %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := DefaultOptions()
			tc.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}
