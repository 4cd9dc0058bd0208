package eviction

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const gibi = 1 << 30

func TestDefaultHard(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		disk                  int64
		wantNodeFS, wantImage string
	}{
		{"a small disk", 50 * gibi, "10%", "15%"},
		{"a middling one", 80 * gibi, "10%", "10Gi"},
		{"a terabyte", 1000 * gibi, "10Gi", "10Gi"},
	} {
		fs := Filesystem{Capacity: tc.disk}
		want := map[string]string{
			"memory.available": "100Mi", "pid.available": "5%", "nodefs.inodesFree": "5%", "imagefs.inodesFree": "5%",
			"nodefs.available": tc.wantNodeFS, "imagefs.available": tc.wantImage,
		}
		if diff := cmp.Diff(want, DefaultHard(Reading{NodeFS: fs, ImageFS: fs})); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestValidate(t *testing.T) {
	m := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	for _, ok := range []Policy{
		{},
		{Hard: m()},
		{Hard: m("memory.available", "1Gi", "nodefs.available", "5%", "imagefs.inodesFree", "1000", "pid.available", "0%")},
		{Soft: m("memory.available", "1Gi"), SoftGracePeriod: m("memory.available", "1m"), MinimumReclaim: m("memory.available", "100Mi")},
	} {
		if err := ok.Validate(); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
	for want, p := range map[string]Policy{
		"--eviction-hard: unsupported eviction signal x":                            {Hard: m("x", "1Gi")},
		"--eviction-hard: eviction threshold memory.available must be positive: 0":  {Hard: m("memory.available", "0")},
		"--eviction-hard: quantities must match":                                    {Hard: m("memory.available", "lots")},
		"--eviction-soft: grace period must be specified":                           {Soft: m("memory.available", "1Gi")},
		"--eviction-soft-grace-period: time: invalid duration":                      {SoftGracePeriod: m("memory.available", "soon")},
		"--eviction-minimum-reclaim: ":                                              {MinimumReclaim: m("memory.available", "-1")},
		"--eviction-hard: allocatableMemory.available is not supported: use memory": {Hard: m("allocatableMemory.available", "1Gi")},
		"--eviction-soft: containerfs.available is not supported":                   {Soft: m("containerfs.available", "1Gi"), SoftGracePeriod: m("containerfs.available", "1s")},
		"--eviction-pressure-transition-period -1ns: must not be negative":          {PressureTransitionPeriod: -1},
		"--eviction-max-pod-grace-period -1: must not be negative":                  {MaxPodGracePeriod: -1},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v:\n got %v\nwant %s", p, err, want)
		}
	}
}
