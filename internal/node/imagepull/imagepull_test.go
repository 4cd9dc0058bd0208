package imagepull

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// registry pulls what it may, taking a second each time.
type registry struct {
	internalapi.ImageManagerService
	clock  *clocktesting.FakeClock
	local  map[string]*runtimeapi.Image
	err    error
	needs  string // the password without which nothing is given
	pulled []string
}

func (r *registry) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	return &runtimeapi.ImageStatusResponse{Image: r.local[spec.Image]}, nil
}

func (r *registry) PullImage(_ context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.pulled = append(r.pulled, spec.Image+":"+auth.GetUsername())
	r.clock.Step(time.Second)
	if r.err != nil {
		return "", r.err
	}
	if r.needs != auth.GetPassword() {
		return "", status.Error(codes.Unauthenticated, "no")
	}
	image := &runtimeapi.Image{Id: "id-" + spec.Image, Size: 77}
	r.local[spec.Image], r.local[image.Id] = image, image
	return image.Id, nil
}

func fixture() (*Puller, *registry, func(image string, p v1.PullPolicy) Request, *[]string) {
	clk := clocktesting.NewFakeClock(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))
	reg := &registry{clock: clk, local: map[string]*runtimeapi.Image{}}
	events := &[]string{}
	request := func(image string, p v1.PullPolicy) Request {
		return Request{
			Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, Image: image, Policy: p,
			Secrets: func(context.Context) ([]v1.Secret, error) { return nil, nil },
			Event: func(kind, reason, message string) {
				*events = append(*events, fmt.Sprintf("%s %s: %s", kind, reason, message))
			},
		}
	}
	return New(reg, nil, clk), reg, request, events
}

func TestLocal(t *testing.T) {
	p, reg, request, _ := fixture()
	reg.local["here:latest"] = &runtimeapi.Image{Id: "id"}
	for name, c := range map[string]struct {
		image  string
		policy v1.PullPolicy
		ok     bool
		reason string
	}{
		"there":             {"here", v1.PullIfNotPresent, true, ""},
		"there, Never":      {"here:latest", v1.PullNever, true, ""},
		"there, Always":     {"here", v1.PullAlways, false, ""},
		"missing":           {"gone", v1.PullIfNotPresent, false, ""},
		"missing, Never":    {"gone", v1.PullNever, false, ReasonNever},
		"a name of no kind": {"Bad:::", v1.PullAlways, false, ReasonInvalidName},
	} {
		t.Run(name, func(t *testing.T) {
			image, ok, err := p.Local(t.Context(), request(c.image, c.policy))
			var e *Error
			if errors.As(err, &e); ok != c.ok || (e == nil) != (c.reason == "") || e != nil && e.Reason != c.reason {
				t.Errorf("%v %v %v", image, ok, err)
			}
		})
	}
}

func TestPull(t *testing.T) {
	p, _, request, events := fixture()
	image, err := p.Pull(t.Context(), request("img", v1.PullAlways))
	if err != nil || image.Ref != "id-img:latest" || image.Info.Size != 77 {
		t.Fatal(image, err)
	}
	if diff := cmp.Diff([]string{
		`Normal Pulling: Pulling image "img"`,
		`Normal Pulled: Successfully pulled image "img" in 1s (1s including waiting). Image size: 77 bytes.`,
	}, *events); diff != "" {
		t.Error(diff)
	}
}

func TestBackOff(t *testing.T) {
	p, reg, request, _ := fixture()
	reg.err = status.Error(codes.NotFound, "not there")
	r := request("img", v1.PullAlways)
	for i, delay := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		if err := p.BackedOff(r); err != nil {
			t.Fatalf("attempt %d: %v", i, err)
		}
		var e *Error
		if _, err := p.Pull(t.Context(), r); !errors.As(err, &e) || e.Reason != ReasonPull || e.Message != "rpc error: code = NotFound desc = not there" {
			t.Fatal(err)
		}
		reg.clock.Step(delay*time.Second - time.Millisecond)
		if err := p.BackedOff(r); !errors.As(err, &e) || e.Reason != ReasonBackOff ||
			e.Message != `Back-off pulling image "img": ErrImagePull: rpc error: code = NotFound desc = not there` {
			t.Fatalf("attempt %d: %v", i, err)
		}
		reg.clock.Step(time.Millisecond)
	}
	other := request("img", v1.PullAlways)
	other.Pod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "other"}}
	if err := p.BackedOff(other); err != nil {
		t.Error("another pod pays for it")
	}
	reg.err = nil
	if _, err := p.Pull(t.Context(), r); err != nil || len(p.backoff) != 0 {
		t.Error("not forgotten after success", err)
	}
}

func TestKnownErrors(t *testing.T) {
	for text, want := range map[string]string{
		"RegistryUnavailable: connection refused":      "RegistryUnavailable: image pull failed for img because the registry is unavailable: connection refused",
		"SignatureValidationFailed: policy rejects it": "SignatureValidationFailed: image pull failed for img because the signature validation failed: policy rejects it",
	} {
		for _, err := range []error{errors.New(text), status.Error(codes.Unknown, text)} {
			p, reg, request, _ := fixture()
			reg.err = err
			var e *Error
			if _, err := p.Pull(t.Context(), request("img", v1.PullAlways)); !errors.As(err, &e) || e.Error() != want {
				t.Error(err)
			}
		}
	}
}

func TestCredentials(t *testing.T) {
	p, reg, request, _ := fixture()
	reg.needs = "right"
	r := request("reg.example/app:1", v1.PullAlways)
	r.Secrets = func(context.Context) ([]v1.Secret, error) {
		auths := func(user, password string) v1.Secret {
			return v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{
				v1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"reg.example":{"username":%q,"password":%q}}}`, user, password),
			}}
		}
		return []v1.Secret{auths("one", "wrong"), auths("two", "right")}, nil
	}
	if _, err := p.Pull(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"reg.example/app:1:one", "reg.example/app:1:two"}, reg.pulled); diff != "" {
		t.Error(diff)
	}
}

func TestCancelled(t *testing.T) {
	p, reg, request, _ := fixture()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	reg.err = context.Canceled
	if _, err := p.Pull(ctx, request("img", v1.PullAlways)); !errors.Is(err, context.Canceled) || len(p.backoff) != 0 {
		t.Error(err)
	}
}

// present makes an image present that nobody has pulled.
func present(r *registry, name string) {
	image := &runtimeapi.Image{Id: "id-" + name, Size: 77}
	r.local[name], r.local[image.Id] = image, image
}
