package imagepull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
)

const private = "reg.example/app"

// secretOfPod is a secret as a pod may name; two of one password are two objects.
func secretOfPod(name, password string) []v1.Secret {
	if name == "" {
		return nil
	}
	return []v1.Secret{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Type:       v1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{
			v1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"reg.example":{"username":"u","password":%q}}}`, password),
		},
	}}
}

// recordsOf opens records as a start of errand does.
func recordsOf(t *testing.T, p *Puller, dir string, policy kubeletconfig.ImagePullCredentialsVerificationPolicy, allow ...string) pullmanager.ImagePullManager {
	t.Helper()
	records, err := OpenRecords(t.Context(), RecordsConfig{Dir: dir, Verification: string(policy), Allowlist: allow, Images: p.images, MaxPods: 10})
	if err != nil {
		t.Fatal(err)
	}
	p.records = records
	return records
}

// use is what a container does to get its image: "present", "pulled", or the
// reason why not.
func use(t *testing.T, p *Puller, r Request) string {
	t.Helper()
	var failure *Error
	_, ok, err := p.Local(t.Context(), r)
	if errors.As(err, &failure) {
		return failure.Reason
	}
	if ok {
		return "present"
	}
	if _, err := p.Pull(t.Context(), r); errors.As(err, &failure) {
		return failure.Reason
	}
	return "pulled"
}

// Who may use an image that a pod has pulled with a secret, before and after a restart.
func TestPresentImages(t *testing.T) {
	for name, tc := range map[string]struct {
		image        string
		policy       v1.PullPolicy
		secret, word string
		want         string
		always       string // with AlwaysVerify, if it differs
	}{
		"the pod's own secret":                  {private + ":1", v1.PullIfNotPresent, "mine", "right", "present", ""},
		"the same, Never":                       {private + ":1", v1.PullNever, "mine", "right", "present", ""},
		"another secret of the same contents":   {private + ":1", v1.PullIfNotPresent, "other", "right", "present", ""},
		"the secret, now with another password": {private + ":1", v1.PullIfNotPresent, "mine", "newer", "present", ""},
		"no secret":                             {private + ":1", v1.PullIfNotPresent, "", "", ReasonPull, ""},
		"no secret, Never":                      {private + ":1", v1.PullNever, "", "", ReasonNever, ""},
		"a wrong secret":                        {private + ":1", v1.PullIfNotPresent, "other", "guess", ReasonPull, ""},
		"a wrong secret, Never":                 {private + ":1", v1.PullNever, "other", "guess", ReasonNever, ""},
		"loaded from an archive":                {"reg.example/loaded:1", v1.PullNever, "", "", "present", ReasonNever},
		"pulled by a pod without a secret":      {"reg.example/public:1", v1.PullNever, "", "", "present", ""},
	} {
		for _, restarted := range []bool{false, true} {
			for _, policy := range []kubeletconfig.ImagePullCredentialsVerificationPolicy{kubeletconfig.NeverVerifyPreloadedImages, kubeletconfig.AlwaysVerify} {
				t.Run(fmt.Sprintf("%s, restarted %v, %s", name, restarted, policy), func(t *testing.T) {
					p, reg, request, events := fixture()
					dir := t.TempDir()
					recordsOf(t, p, dir, policy)
					present(reg, "reg.example/loaded:1")
					if got := use(t, p, request("reg.example/public:1", v1.PullIfNotPresent)); got != "pulled" {
						t.Fatal(got)
					}
					reg.needs = "right"
					first := request(private+":1", v1.PullIfNotPresent)
					first.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("mine", "right"), nil }
					if got := use(t, p, first); got != "pulled" {
						t.Fatal(got)
					}
					if restarted {
						recordsOf(t, p, dir, policy)
					}
					*events = nil
					r := request(tc.image, tc.policy)
					r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod(tc.secret, tc.word), nil }
					want := tc.want
					if policy == kubeletconfig.AlwaysVerify && tc.always != "" {
						want = tc.always
					}
					if got := use(t, p, r); got != want {
						t.Errorf("%s, want %s; events %q", got, want, *events)
					}
					told := strings.Contains(strings.Join(*events, "\n"), "already present on machine")
					if told != (want == "present") {
						t.Errorf("whether it is present: %q", *events)
					}
				})
			}
		}
	}
}

// A pod whose secret the registry takes may have the image from then on.
func TestVerifiedOnce(t *testing.T) {
	p, reg, request, _ := fixture()
	recordsOf(t, p, t.TempDir(), kubeletconfig.NeverVerifyPreloadedImages)
	reg.needs = "right"
	r := request(private+":1", v1.PullIfNotPresent)
	r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("mine", "right"), nil }
	use(t, p, r)
	reg.needs = "newer"
	r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("other", "newer"), nil }
	for i, want := range []string{"pulled", "present"} {
		if got := use(t, p, r); got != want {
			t.Errorf("use %d: %s, want %s", i, got, want)
		}
	}
	if len(reg.pulled) != 2 {
		t.Errorf("pulls: %q", reg.pulled)
	}
}

// A secret that can't be read opens nothing, and the pod says so.
func TestBrokenSecret(t *testing.T) {
	p, reg, request, events := fixture()
	recordsOf(t, p, t.TempDir(), kubeletconfig.NeverVerifyPreloadedImages)
	reg.needs = "right"
	r := request(private+":1", v1.PullIfNotPresent)
	r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("mine", "right"), nil }
	use(t, p, r)
	r.Secrets = func(context.Context) ([]v1.Secret, error) {
		broken := secretOfPod("mine", "right")
		broken[0].Data[v1.DockerConfigJsonKey] = []byte("{")
		return broken, nil
	}
	*events = nil
	if got := use(t, p, r); got != ReasonPull {
		t.Errorf("%s, want %s", got, ReasonPull)
	}
	want := `Warning Failed: Failed to check whether the pod may use image "reg.example/app:1": read the pod's image pull secrets: unexpected end of JSON input`
	if len(*events) != 1 || (*events)[0] != want {
		t.Errorf("events %q, want %q", *events, want)
	}
}

// Killed after the image was there and before it was recorded: it is nobody's
// until a registry has been asked, whatever the pod left out of its name.
func TestKilledWhileRecording(t *testing.T) {
	for _, image := range []string{private, private + ":1"} {
		t.Run(image, func(t *testing.T) {
			p, reg, request, _ := fixture()
			dir := t.TempDir()
			if err := recordsOf(t, p, dir, kubeletconfig.NeverVerifyPreloadedImages).RecordPullIntent(klog.Background(), image); err != nil {
				t.Fatal(err)
			}
			name, err := withTag(image)
			if err != nil {
				t.Fatal(err)
			}
			present(reg, name)
			reg.needs = "right"
			for range 2 { // the start that finds it, and the one after
				recordsOf(t, p, dir, kubeletconfig.NeverVerifyPreloadedImages)
				if got := use(t, p, request(image, v1.PullNever)); got != ReasonNever {
					t.Errorf("a pod without a secret: %s", got)
				}
			}
		})
	}
}

// An image that went and comes back from an archive has no history.
func TestPruned(t *testing.T) {
	p, reg, request, _ := fixture()
	records := recordsOf(t, p, t.TempDir(), kubeletconfig.NeverVerifyPreloadedImages)
	reg.needs = "right"
	r := request(private+":1", v1.PullIfNotPresent)
	r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("mine", "right"), nil }
	use(t, p, r)
	for _, step := range []struct {
		left []string
		want string
	}{{[]string{"id-" + private + ":1"}, ReasonNever}, {nil, "present"}} {
		records.PruneUnknownRecords(t.Context(), step.left, time.Now().Add(time.Second))
		if got := use(t, p, request(private+":1", v1.PullNever)); got != step.want {
			t.Errorf("with %q left: %s, want %s", step.left, got, step.want)
		}
	}
}

func TestVerificationPolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		policy kubeletconfig.ImagePullCredentialsVerificationPolicy
		allow  []string
		err    string
		want   string // of a pod without the secret that pulled the image
	}{
		"never":              {kubeletconfig.NeverVerify, nil, "", "present"},
		"preloaded":          {kubeletconfig.NeverVerifyPreloadedImages, nil, "", ReasonNever},
		"always":             {kubeletconfig.AlwaysVerify, nil, "", ReasonNever},
		"on the list":        {kubeletconfig.NeverVerifyAllowlistedImages, []string{"reg.example/*"}, "", "present"},
		"not on the list":    {kubeletconfig.NeverVerifyAllowlistedImages, []string{"reg.example/other"}, "", ReasonNever},
		"of no kind":         {"Sometimes", nil, `policy "Sometimes": must be NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify`, ""},
		"a list for nothing": {kubeletconfig.AlwaysVerify, []string{"a/b"}, "needs --image-pull-credentials-verification-policy=NeverVerifyAllowlistedImages", ""},
		"a list of nonsense": {kubeletconfig.NeverVerifyAllowlistedImages, []string{"*/b"}, "only patterns ending with '/*' are allowed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := ValidateVerification(string(tc.policy), tc.allow)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p, reg, request, _ := fixture()
			recordsOf(t, p, t.TempDir(), tc.policy, tc.allow...)
			reg.needs = "right"
			r := request(private+":1", v1.PullIfNotPresent)
			r.Secrets = func(context.Context) ([]v1.Secret, error) { return secretOfPod("mine", "right"), nil }
			use(t, p, r)
			if got := use(t, p, request(private+":1", v1.PullNever)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
