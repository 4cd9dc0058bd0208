package jobrun

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestEnvironment(t *testing.T) {
	lookup := func(name string) (string, bool) { return "from here", name == "HERE" }
	for name, tc := range map[string]struct {
		words []string
		want  []corev1.EnvVar
		err   string
	}{
		"a value":        {[]string{"A=b=c", "EMPTY="}, []corev1.EnvVar{{Name: "A", Value: "b=c"}, {Name: "EMPTY"}}, ""},
		"passed on":      {[]string{"HERE"}, []corev1.EnvVar{{Name: "HERE", Value: "from here"}}, ""},
		"nowhere":        {[]string{"THERE"}, nil, "set one by THERE=VALUE"},
		"without a name": {[]string{"=b"}, nil, `--env "=b": the name ""`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := environment(tc.words, lookup)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestAJobsNameFromItsImages(t *testing.T) {
	for image, want := range map[string]string{
		"busybox":                              "busybox-",
		"docker.io/library/busybox:1.36":       "busybox-",
		"localhost:5000/My_Tool.v2@sha256:abc": "my-tool-v2-",
		"localhost:5000/":                      "localhost-",
		"___":                                  "job-",
		strings.Repeat("x", 100):               strings.Repeat("x", 40) + "-",
	} {
		job, err := Make(Words{Image: image})
		if err != nil || job.GenerateName != want {
			t.Errorf("%s gives %q (%v), want %q", image, job.GenerateName, err, want)
		}
	}
}
