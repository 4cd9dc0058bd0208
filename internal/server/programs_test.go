package server

import "testing"

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]struct {
		v  [3]int
		ok bool
	}{
		"runc version 1.5.2\nspec: 1.3.0\n": {[3]int{1, 5, 2}, true},
		"crun version 1.21\ncommit: abc\n":  {[3]int{1, 21, 0}, true},
		"runc version 1.1.5+ds1\n":          {[3]int{1, 1, 5}, true},
		"runc version 1.5.0-rc.1\n":         {[3]int{1, 5, 0}, true},
		"runc version unknown\n":            {[3]int{}, false},
		"kata-runtime  : 3.1.0\n":           {[3]int{}, false},
		"":                                  {[3]int{}, false},
	} {
		if v, ok := parseVersion(out); ok != want.ok || (ok && v != want.v) {
			t.Errorf("parseVersion(%q) = %v, %v, want %v, %v", out, v, ok, want.v, want.ok)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		a, b [3]int
		want bool
	}{
		{[3]int{1, 1, 5}, [3]int{1, 1, 12}, true},
		{[3]int{1, 1, 12}, [3]int{1, 1, 12}, false},
		{[3]int{1, 21, 0}, [3]int{1, 3, 9}, false},
		{[3]int{0, 99, 99}, [3]int{1, 0, 0}, true},
	} {
		if got := older(tc.a, tc.b); got != tc.want {
			t.Errorf("older(%v, %v) = %v", tc.a, tc.b, got)
		}
	}
}

func TestDefaultRuntime(t *testing.T) {
	for _, tc := range []struct {
		have map[string]string
		want string
	}{
		{map[string]string{"runc": "/r", "crun": "/c"}, "crun"},
		{map[string]string{"runc": "/r", "kata": "/k"}, "runc"},
		{map[string]string{"kata": "/k"}, "kata"},
		{map[string]string{"kata": "/k", "gvisor": "/g"}, ""},
		{nil, ""},
	} {
		if got := defaultRuntime(tc.have); got != tc.want {
			t.Errorf("defaultRuntime(%v) = %q, want %q", tc.have, got, tc.want)
		}
	}
}
