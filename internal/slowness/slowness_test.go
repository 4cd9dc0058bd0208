package slowness

import (
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	for factor, want := range map[string]time.Duration{"": time.Second, "20": 20 * time.Second, "0": time.Second, "x": time.Second} {
		t.Setenv("ERRAND_SLOWNESS", factor)
		if got := Times(time.Second); got != want {
			t.Errorf("%q: %v, want %v", factor, got, want)
		}
	}
}
