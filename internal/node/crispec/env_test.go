package crispec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

// store has a ConfigMap "cm", a Secret "sec" and two services, and as files those
// of the directory.
type store struct{ dir string }

func (s store) File(volume, path string) (*os.File, error) {
	return os.Open(filepath.Join(s.dir, volume, path))
}

func (store) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if name != "cm" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
	}
	return &v1.ConfigMap{Data: map[string]string{"b": "2", "a": "1"}}, nil
}

func (store) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if name != "sec" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
	}
	return &v1.Secret{Data: map[string][]byte{"pw": []byte("x")}}, nil
}

func (store) Services(string) ([]*v1.Service, error) {
	service := func(ns, name, ip string) *v1.Service {
		return &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec:       v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Port: 443, Protocol: v1.ProtocolTCP}}},
		}
	}
	return []*v1.Service{
		service("default", "kubernetes", "10.96.0.1"),
		service("ns", "db", "10.96.0.2"),
		service("ns", "headless", v1.ClusterIPNone),
		service("other", "web", "10.96.0.3"),
	}, nil
}

func fieldRef(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
}

func cmRef(name, key string, optional bool) *v1.EnvVarSource {
	return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
		LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func secretRef(name, key string, optional bool) *v1.EnvVarSource {
	return &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{
		LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func resourceRef(container, name string) *v1.EnvVarSource {
	return &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: container, Resource: name}}
}

func TestEnv(t *testing.T) {
	for name, c := range map[string]struct {
		from []v1.EnvFromSource
		env  []v1.EnvVar
		want []EnvVar
		err  string
	}{
		"literals and references": {
			env: []v1.EnvVar{
				{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)-$(NONE)-$$(A)"}, {Name: "EMPTY"}, {Name: "A", Value: "$(A)2"},
			},
			want: []EnvVar{{"A", "12"}, {"B", "1-$(NONE)-$(A)"}, {"EMPTY", ""}},
		},
		"fields": {
			env: []v1.EnvVar{
				{Name: "NAME", ValueFrom: fieldRef("metadata.name")}, {Name: "L", ValueFrom: fieldRef("metadata.labels['l']")},
				{Name: "NODE", ValueFrom: fieldRef("spec.nodeName")}, {Name: "HOST", ValueFrom: fieldRef("status.hostIP")},
				{Name: "IP", ValueFrom: fieldRef("status.podIP")}, {Name: "IPS", ValueFrom: fieldRef("status.podIPs")},
			},
			want: []EnvVar{{"NAME", "p"}, {"L", "v"}, {"NODE", "node-1"}, {"HOST", "192.0.2.1"}, {"IP", "10.0.0.2"}, {"IPS", "10.0.0.2,fd00::2"}},
		},
		"resources": {
			env: []v1.EnvVar{
				{Name: "OWN", ValueFrom: resourceRef("", "limits.cpu")}, {Name: "NODES", ValueFrom: resourceRef("", "limits.memory")},
				{Name: "OTHERS", ValueFrom: resourceRef("d", "requests.cpu")},
			},
			want: []EnvVar{{"OWN", "2"}, {"NODES", "8589934592"}, {"OTHERS", "3"}},
		},
		"keys": {
			env: []v1.EnvVar{
				{Name: "A", ValueFrom: cmRef("cm", "a", false)}, {Name: "PW", ValueFrom: secretRef("sec", "pw", false)},
				{Name: "NO", ValueFrom: cmRef("none", "a", true)}, {Name: "NO2", ValueFrom: secretRef("sec", "none", true)},
			},
			want: []EnvVar{{"A", "1"}, {"PW", "x"}},
		},
		"all of them, env wins": {
			from: []v1.EnvFromSource{
				{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}},
				{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "sec"}}},
				{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Optional: ptr.To(true)}},
			},
			env:  []v1.EnvVar{{Name: "pw", Value: "$(P_a)"}},
			want: []EnvVar{{"P_a", "1"}, {"P_b", "2"}, {"pw", "1"}},
		},
		"no such map":    {env: []v1.EnvVar{{Name: "A", ValueFrom: cmRef("none", "a", false)}}, err: `configmap "none" not found`},
		"no such key":    {env: []v1.EnvVar{{Name: "A", ValueFrom: cmRef("cm", "z", false)}}, err: "couldn't find key z in ConfigMap ns/cm"},
		"no such secret": {env: []v1.EnvVar{{Name: "A", ValueFrom: secretRef("sec", "z", false)}}, err: "couldn't find key z in Secret ns/sec"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.EnableServiceLinks = ptr.To(false)
			pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: "d", Resources: v1.ResourceRequirements{Requests: list("3", "")}})
			ctr := &pod.Spec.Containers[0]
			ctr.Resources.Limits = list("2", "")
			ctr.Env, ctr.EnvFrom = c.env, c.from
			got, err := testNode(t).Env(t.Context(), store{""}, pod, ctr, []string{"10.0.0.2", "fd00::2"})
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			own := got[:min(len(got), len(c.want))]
			if diff := cmp.Diff(c.want, own); diff != "" {
				t.Error(diff)
			}
			if rest := got[len(own):]; len(rest) == 0 || rest[0].Name != "KUBERNETES_PORT" {
				t.Errorf("the services' variables come last: %v", rest)
			}
		})
	}
}

func TestServiceEnv(t *testing.T) {
	pod := testPod()
	names := func() map[string]string {
		env, err := testNode(t).Env(t.Context(), store{""}, pod, &pod.Spec.Containers[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, e := range env {
			m[e.Name] = e.Value
		}
		return m
	}
	all := names()
	if all["KUBERNETES_SERVICE_HOST"] != "10.96.0.1" || all["DB_SERVICE_HOST"] != "10.96.0.2" || all["WEB_SERVICE_HOST"] != "" || all["HEADLESS_SERVICE_HOST"] != "" {
		t.Error(all)
	}
	pod.Spec.EnableServiceLinks = ptr.To(false)
	if few := names(); few["DB_SERVICE_HOST"] != "" || few["KUBERNETES_SERVICE_PORT"] != "443" {
		t.Error(few)
	}
}

// A variable from a file (KEP-3721).
func TestFileKeys(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"v/good": "# made by an init container\nA='1'\nB='two words'\n", "v/bad": "A=1\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		path, key  string
		optional   bool
		want, fail string
	}{
		{"good", "B", false, "X=two words", ""},
		{"good", "C", true, "", ""},
		{"good", "C", false, "", `environment variable key "C" not found in file "good" in volume "v"`},
		{"none", "A", true, "", ""},
		{"none", "A", false, "", `couldn't read env file "none" in volume "v"`},
		{"bad", "A", true, "", `couldn't parse env file "bad" in volume "v"`},
	} {
		c := &v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: &v1.EnvVarSource{
			FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: tc.path, Key: tc.key, Optional: &tc.optional},
		}}}}
		vars, err := Node{}.Env(t.Context(), store{dir}, &v1.Pod{}, c, nil)
		got := ""
		for _, v := range vars {
			if v.Name == "X" {
				got = "X=" + v.Value
			}
		}
		if got != tc.want || (err == nil) != (tc.fail == "") || err != nil && !strings.Contains(err.Error(), tc.fail) {
			t.Errorf("%s in %s: %q, %v", tc.key, tc.path, got, err)
		}
	}
}
