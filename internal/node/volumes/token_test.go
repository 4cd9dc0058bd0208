package volumes

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestRenewalTime(t *testing.T) {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct{ life, want time.Duration }{
		{10 * time.Minute, 8 * time.Minute},
		{time.Hour, 48 * time.Minute},
		{30 * time.Hour, 24 * time.Hour},
		{365 * 24 * time.Hour, 24 * time.Hour},
	} {
		if got := renewalTime(issued, issued.Add(tc.life)).Sub(issued); got != tc.want {
			t.Errorf("a token of %v is renewed after %v, want %v", tc.life, got, tc.want)
		}
	}
}

func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	w := newWorld(t)
	pod := podWith(tokenVolume("t", 600))
	root := w.mustSetup(t, pod)["t"].HostPath
	read := func() string { return contents(t, root)["token"] }

	w.clock.Step(7 * time.Minute)
	w.mustRefresh(t, pod)
	if got := read(); got != "token-1" {
		t.Errorf("after 7 of 10 minutes: %s, want token-1", got)
	}
	w.clock.Step(time.Minute)
	w.awaitChange(t, pod)
	w.mustRefresh(t, pod)
	if got := read(); got != "token-2" {
		t.Errorf("after 8 of 10 minutes: %s, want token-2", got)
	}

	w.fail = errors.New("the API server is away")
	w.clock.Step(8 * time.Minute)
	w.awaitChange(t, pod)
	w.mustRefresh(t, pod)
	if got := read(); got != "token-2" {
		t.Errorf("a failed renewal left %s, want token-2", got)
	}
	w.clock.Step(tokenRetry)
	w.awaitChange(t, pod)
	w.clock.Step(2 * time.Minute)
	err := w.Refresh(t.Context(), pod, Info{})
	want := `MountVolume.SetUp failed for volume "t" : token token expired and refresh failed: the API server is away`
	if err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	w.fail = nil
	w.mustRefresh(t, pod)
	if got := read(); got != "token-3" {
		t.Errorf("after recovery: %s, want token-3", got)
	}
}

func TestTeardownStopsRenewal(t *testing.T) {
	w := newWorld(t)
	pod := podWith(tokenVolume("t", 600))
	w.mustSetup(t, pod)
	if err := w.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if w.clock.HasWaiters() {
		t.Error("a timer outlived the pod's volumes")
	}
}

func TestEachTokenHasItsPath(t *testing.T) {
	w := newWorld(t)
	pod := podWith(tokenVolume("t", 600), tokenVolume("u", 600))
	vols := w.mustSetup(t, pod)
	a, b := contents(t, vols["t"].HostPath), contents(t, vols["u"].HostPath)
	if a["token"] == b["token"] {
		t.Errorf("both volumes hold %s", a["token"])
	}
	if filepath.Base(filepath.Dir(vols["t"].HostPath)) != pluginProjected {
		t.Errorf("path %s", vols["t"].HostPath)
	}
}
