package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// samples has three looks, which tell the same but for one measure at the last.
func samples(name string, before, now float64) []sample {
	at := slices.IndexFunc(measures, func(m measure) bool { return m.name == name })
	seen := make([]sample, 3)
	for i := range seen {
		seen[i] = sample{Pods: 1000 * i, At: time.Duration(i) * 20 * time.Minute, values: make([]float64, len(measures))}
		seen[i].values[at] = before
	}
	seen[2].values[at] = now
	return seen
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		measure     string
		before, now float64
		grew        bool
	}{
		{"mounts", 1, 1, false},
		{"mounts", 1, 2, true},
		{"mounts", 2, 1, false},
		{"goroutines", 1000, 1010, false},
		{"goroutines", 1000, 1100, true},
		{"heap MiB", 100, 125, false},
		{"heap MiB", 100, 150, true},
		{"events", 100, 1000, false},
		{"db", 40, 45, false},
		{"db", 40, 100, true},
	} {
		err := judge(samples(tc.measure, tc.before, tc.now))
		if (err != nil) != tc.grew {
			t.Errorf("%s from %g to %g: %v", tc.measure, tc.before, tc.now, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), tc.measure) {
			t.Errorf("%s: %v", tc.measure, err)
		}
	}
}

// Memory that goes with a faster stream of events is no leak.
func TestJudgeAllowsForEvents(t *testing.T) {
	seen := samples("heap MiB", 100, 200)
	seen[2].values[0] = 1000
	if err := judge(seen); err != nil {
		t.Error(err)
	}
}

func TestKindsAreValid(t *testing.T) {
	for _, k := range kinds {
		if _, err := k.job(k.name); err != nil {
			t.Error(err)
		}
	}
}
