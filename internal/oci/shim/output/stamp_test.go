package output

import "testing"

func TestIsStamp(t *testing.T) {
	for s, want := range map[string]bool{
		"20260102-150405": true, "20260102-150405.000001": true,
		"": false, "20260102": false, "2026010-2150405": false, "20260102-15040x": false, "20260102-150405.": false,
		"20260102-150405.1": false, "20260102-150405.gz": false, "20260102-150405-1": false,
	} {
		if isStamp(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}
