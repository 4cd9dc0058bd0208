package command

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/klog/v2"
)

var cronjobs = schema.GroupResource{Group: "batch", Resource: "cronjobs"}

// closedHere is what becomes of a call on a socket that has been closed on this side.
func closedHere(t *testing.T) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = l.Accept()
	return err
}

func TestHarmless(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"none":                    {nil, false},
		"a conflict":              {apierrors.NewConflict(cronjobs, "c", errors.New("changed")), true},
		"a wrapped conflict":      {fmt.Errorf("error syncing c, requeuing: %w", apierrors.NewConflict(cronjobs, "c", errors.New("changed"))), true},
		"a conflict's text":       {fmt.Errorf("PV v failed with : %v", apierrors.NewConflict(cronjobs, "c", errors.New(registry.OptimisticLockErrorMsg))), true},
		"gone":                    {apierrors.NewNotFound(cronjobs, "c"), false},
		"refused":                 {apierrors.NewForbidden(cronjobs, "c", errors.New("no")), false},
		"closed on this side":     {closedHere(t), true},
		"closed on the other":     {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, false},
		"an exec":                 {errors.New(`error executing command in container: exec: "x": executable file not found in $PATH`), true},
		"an attach":               {errors.New("error attaching to container: it isn't running"), true},
		"a port forwarding":       {errors.New("error forwarding port 80 to pod x, uid : connection refused"), true},
		"an exec's text, further": {errors.New("hook: error executing command in container: x"), false},
		"a full disk":             {fmt.Errorf("write the log: %w", syscall.ENOSPC), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isHarmless(tc.err); got != tc.want {
				t.Errorf("isHarmless(%v) = %t, want %t", tc.err, got, tc.want)
			}
		})
	}
}

func TestLogByVerbosity(t *testing.T) {
	conflict := apierrors.NewConflict(cronjobs, "c", errors.New(registry.OptimisticLockErrorMsg))
	for verbosity, want := range map[int][]string{
		0: {"warned", "failed", "structured failed", "named failed"},
		1: {"told", "structured told", "V(1)", "named told", "warned", "failed", "structured failed", "named failed"},
		2: {"told", "structured told", "V(1)", "V(2)", "named told", "warned", "failed", "structured failed", "named failed", "conflict", "named conflict", "formatted: Operation cannot be fulfilled on cronjobs.batch "}, // up to a quote
	} {
		t.Run(fmt.Sprint(verbosity), func(t *testing.T) {
			t.Cleanup(klog.ClearLogger)
			var out bytes.Buffer
			if err := StartLogging(t.Context(), verbosity, &out); err != nil {
				t.Fatal(err)
			}
			named := klog.LoggerWithValues(klog.LoggerWithName(klog.Background(), "n"), "k", "v")
			klog.Infof("told")
			klog.InfoS("structured told")
			klog.V(1).Info("V(1)")
			klog.V(2).Info("V(2)")
			named.Info("named told")
			klog.Warning("warned")
			klog.Errorf("failed")
			klog.ErrorS(errors.New("x"), "structured failed")
			named.Error(errors.New("x"), "named failed")
			klog.ErrorS(conflict, "conflict")
			named.Error(conflict, "named conflict")
			klog.Errorf("formatted: %v", conflict)

			var got []string
			for line := range strings.Lines(out.String()) {
				header, text, _ := strings.Cut(line, "] ")
				if !regexp.MustCompile(`^[IWE]\d{4} .* logging_test\.go:\d+$`).MatchString(header) {
					t.Errorf("the line doesn't name its place: %s", line)
				}
				text, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), `"`), `"`)
				got = append(got, text)
			}
			if strings.Join(got, ",") != strings.Join(want, ",") {
				t.Errorf("at verbosity %d: %q, want %q", verbosity, got, want)
			}
			if verbosity > 0 && !strings.Contains(out.String(), `"named failed" err="x" logger="n" k="v"`) {
				t.Errorf("the name and values are lost:\n%s", out.String())
			}
		})
	}
}
