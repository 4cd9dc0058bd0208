package controller

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"errand.dev/errand/internal/clusterengine"
	"errand.dev/errand/internal/command"
)

// deployed reads an object of deploy/controller; an unknown field is an error.
func deployed[T any](t *testing.T, name string) *T {
	t.Helper()
	b, err := os.ReadFile("../../../deploy/controller/" + name)
	if err != nil {
		t.Fatal(err)
	}
	obj := new(T)
	if err := yaml.UnmarshalStrict(b, obj); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return obj
}

// The Deployment calls errand-controller in a way that it understands.
func TestDeployedArguments(t *testing.T) {
	c := deployed[appsv1.Deployment](t, "deployment.yaml").Spec.Template.Spec.Containers[0]
	o := clusterengine.DefaultOptions()
	f := pflag.NewFlagSet("errand-controller", pflag.ContinueOnError)
	addControllerFlags(f, &o)
	if err := f.Parse(c.Args); err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	role, err := os.ReadFile("../../../deploy/controller/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(role), "resourceNames: ["+o.Lease.Name+"]") {
		t.Errorf("it takes the lease %s, for which it has no rights", o.Lease.Name)
	}
	for _, probe := range []string{c.LivenessProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path} {
		if !slices.Contains([]string{"/healthz", "/readyz"}, probe) {
			t.Errorf("it is asked for %s", probe)
		}
	}
}

// Its pods are let into a namespace with the strictest Pod Security Standard,
// and the budget is theirs.
func TestDeployedPodsAreRestricted(t *testing.T) {
	pods := deployed[appsv1.Deployment](t, "deployment.yaml").Spec.Template
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(level, &pods.ObjectMeta, &pods.Spec) {
		if !r.Allowed {
			t.Errorf("%s: %s", r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
	c := pods.Spec.Containers[0].SecurityContext
	if c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem {
		t.Error("its root file system can be written")
	}
	selector, err := metav1.LabelSelectorAsSelector(deployed[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml").Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set(pods.Labels)) {
		t.Errorf("the budget %s isn't of pods with %v", selector, pods.Labels)
	}
}

func TestCallIsChecked(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string // part of the message
	}{
		{[]string{"--workers=0"}, "errand-controller: --workers 0"},
		{[]string{"now"}, "errand-controller takes no arguments"},
		{[]string{"--worker"}, "unknown flag: --worker (see errand-controller --help)"},
	} {
		var stdout, stderr strings.Builder
		code := Main("errand-controller", tc.args, strings.NewReader(""), &stdout, &stderr)
		if code != command.ExitUsage || !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
			t.Errorf("errand-controller %v: exit code %d, %q, %q", tc.args, code, stdout.String(), stderr.String())
		}
	}
}

// What it says of itself names the program that was called.
func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "--version"} {
		var stdout, stderr strings.Builder
		code := Main("errand-controller", []string{arg}, strings.NewReader(""), &stdout, &stderr)
		if code != command.ExitOK || stderr.Len() > 0 || !strings.HasPrefix(stdout.String(), "errand") && arg == "--version" ||
			arg == "--help" && (!strings.Contains(stdout.String(), "  errand-controller --kubeconfig") || strings.Contains(stdout.String(), "errand controller")) {
			t.Errorf("errand-controller %s: exit code %d, %q, %q", arg, code, stdout.String(), stderr.String())
		}
	}
}
