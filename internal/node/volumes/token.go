package volumes

import (
	"context"
	"fmt"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const (
	// A token is renewed when this share of its life is over, at the latest after maxTokenAge.
	renewAfterNum, renewAfterDen = 8, 10
	maxTokenAge                  = 24 * time.Hour
	// A renewal that failed is tried again after tokenRetry.
	tokenRetry = 10 * time.Second
)

// tokenKey tells the tokens of one pod apart.
type tokenKey struct{ volume, path string }

type token struct {
	value   string
	renewAt time.Time // when to ask for the next one
	endsAt  time.Time // when the API server stops accepting it
}

// serviceAccountToken returns the pod's token for a projection: the one at hand
// until it is due, then a new one. If a renewal fails, a token that still holds
// goes on being used and the next attempt is tokenRetry away.
func (m *Manager) serviceAccountToken(ctx context.Context, st *podState, r request, p *v1.ServiceAccountTokenProjection) (string, error) {
	key, now := tokenKey{r.vol.Name, p.Path}, m.cfg.Clock.Now()
	old, have := st.tokens[key]
	if have && now.Before(old.renewAt) {
		return old.value, nil
	}
	fresh, err := m.requestToken(ctx, r.pod, p)
	switch {
	case err == nil:
		st.tokens[key] = fresh
		return fresh.value, nil
	case have && now.Before(old.endsAt):
		klog.FromContext(ctx).Error(err, "Service account token could not be renewed; the old one holds for now",
			"pod", klog.KObj(r.pod), "volume", r.vol.Name, "until", old.endsAt)
		old.renewAt = now.Add(tokenRetry)
		st.tokens[key] = old
		return old.value, nil
	case have:
		return "", fmt.Errorf("token %s expired and refresh failed: %w", p.Path, err)
	default:
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
}

func (m *Manager) requestToken(ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection) (token, error) {
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef: &authv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	asked := m.cfg.Clock.Now()
	got, err := m.cfg.Client.CoreV1().ServiceAccounts(pod.Namespace).
		CreateToken(ctx, pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		return token{}, fmt.Errorf("serviceaccount %q: %w", pod.Spec.ServiceAccountName, err)
	}
	if err != nil {
		return token{}, err
	}
	ends := got.Status.ExpirationTimestamp.Time
	return token{value: got.Status.Token, renewAt: renewalTime(asked, ends), endsAt: ends}, nil
}

// renewalTime is when a token issued at a time and ending at another is due:
// at 80 % of its life, at most a day after it was issued.
func renewalTime(issued, ends time.Time) time.Time {
	after := ends.Sub(issued) * renewAfterNum / renewAfterDen
	return issued.Add(min(after, maxTokenAge))
}

// armRenewal sets the pod's timer for the first of its tokens that is due.
func (m *Manager) armRenewal(uid types.UID, st *podState) {
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
	var first time.Time
	for _, t := range st.tokens {
		if first.IsZero() || t.renewAt.Before(first) {
			first = t.renewAt
		}
	}
	if first.IsZero() {
		return
	}
	wait := max(first.Sub(m.cfg.Clock.Now()), time.Millisecond)
	st.timer = m.cfg.Clock.AfterFunc(wait, func() { m.cfg.OnChange(uid) })
}
