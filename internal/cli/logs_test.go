package cli

import (
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/joblogs"
)

func TestHeading(t *testing.T) {
	begin := time.Date(2026, 7, 1, 12, 0, 0, 0, time.Local)
	for want, a := range map[string]joblogs.Attempt{
		"pod p, container c, attempt 1: exit code 7 (Error), 2026-07-01 12:00:00 to 2026-07-01 12:00:05; the pod is gone": {
			Pod: "p", Container: "c", ExitCode: ptr.To[int32](7), Reason: "Error", StartedAt: begin, FinishedAt: begin.Add(5 * time.Second), PodGone: true,
		},
		"pod p, container c, attempt 3: running, since 2026-07-01 12:00:00": {Pod: "p", Container: "c", RestartCount: 2, Running: true, StartedAt: begin},
		"pod p, container c, attempt 2: nobody saw its end":                 {Pod: "p", Container: "c", RestartCount: 1},
	} {
		if got := heading(&a); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Without an errand, errand logs says so.
func TestLogsWithoutErrand(t *testing.T) {
	dir := t.TempDir()
	code, stdout, stderr := call(t, "logs", "job/x", "--data-dir="+dir)
	if code != command.ExitError || stdout != "" || !strings.Contains(stderr, "there is no errand at "+dir) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
