package jobs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

// goingClock is a clock that goes on while it is looked at.
type goingClock struct {
	clock.PassiveClock
	now time.Time
}

func (c *goingClock) Now() time.Time {
	c.now = c.now.Add(120 * time.Nanosecond)
	return c.now
}

// Errors are logged as errors, but for those that a Job's author is told of by an event.
func TestLogOfFailedDeeds(t *testing.T) {
	forbidden := apierrors.NewForbidden(podResource, "", errors.New("exceeded quota: pods"))
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "p", nil)
	for name, tc := range map[string]struct {
		deed      deed
		err       error
		verbosity int
		want      string // what the one line says; "" if there is none
	}{
		"no quota":                     {deedCreate, forbidden, 0, ""},
		"no quota, with details":       {deedCreate, forbidden, 2, `"level"=2 "msg"="Job: a pod is refused; will try again"`},
		"not valid":                    {deedCreate, invalid, 0, ""},
		"no answer":                    {deedCreate, errors.New("connection reset"), 0, `"msg"="Job: will try again" "error"="connection reset"`},
		"may not be deleted":           {deedDelete, forbidden, 0, `"msg"="Job: will try again" "error"="pods is forbidden`},
		"is not to lose its finalizer": {deedRelease, invalid, 0, `"msg"="Job: will try again" "error"="Pod`},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			logger := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{Verbosity: tc.verbosity})
			e := &engine{clock: &goingClock{clocktesting.NewFakePassiveClock(epoch), epoch}, inFlight: 1}
			if e.attempt(klog.NewContext(t.Context(), logger), &jobState{namespace: "ns", name: "job"}, tc.deed, 1, func(int) error { return tc.err }) {
				t.Error("a success")
			}
			if tc.want == "" {
				if len(lines) > 0 {
					t.Errorf("logged: %q", lines)
				}
				return
			}
			if len(lines) != 1 || !strings.HasPrefix(lines[0], tc.want) || !strings.Contains(lines[0], `"wait"="1s"`) {
				t.Errorf("logged: %q, want one line that begins with %q and says the wait of 1s", lines, tc.want)
			}
		})
	}
}
