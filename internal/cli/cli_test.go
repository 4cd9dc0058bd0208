package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
)

// call runs the command line in this process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestAMisspeltCommandIsAUsageError(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string // part of the message
	}{
		{[]string{"foo"}, `errand has no command "foo" (see errand --help)`},
		{[]string{"kubctl", "get", "jobs"}, `errand has no command "kubctl": did you mean errand kubectl?`},
		{[]string{"image", "lst"}, `errand image has no command "lst": did you mean errand image list?`},
		{[]string{"image", "xyzzy"}, `errand image has no command "xyzzy" (see errand image --help)`},
		{[]string{"get", "jobs"}, `errand has no command "get": did you mean errand kubectl get?`},
		{[]string{"apply", "-f", "x.yaml"}, `errand has no command "apply": did you mean errand kubectl apply?`},
		{[]string{"image", "lst", "--all"}, `errand image has no command "lst": did you mean errand image list?`},
		{[]string{"--nod"}, "unknown flag: --nod (see errand --help)"},
		{[]string{"help", "srve"}, `errand has no command "srve": did you mean errand serve?`},
		{[]string{"help", "image", "xyzzy"}, `errand image has no command "xyzzy"`},
		{[]string{"completion", "tcsh"}, `errand completion has no command "tcsh"`},
		{[]string{"kubeconfig", "--into", "x"}, "--into needs --merge"},
		{[]string{"kubeconfig", "--context", "x"}, "--context needs --merge"},
		{[]string{"run", "--image", "busybox", "--timeout", "-5s"}, "--timeout -5s: must not be negative"},
		{[]string{"serve", "--nod"}, "unknown flag: --nod (see errand serve --help)"},
		{[]string{"image", "pull"}, "needs an image"},
		{[]string{"version", "-o", "xml"}, "must be json or yaml"},
		{[]string{"run"}, "needs a manifest, by -f FILE, or an image"},
		{[]string{"run", "busybox", "echo", "hi"}, "did you mean errand run --image busybox -- echo hi?"},
		{[]string{"run", "a", "b", "--image", "busybox"}, "the command stands behind --"},
		{[]string{"run", "-f", "x.yaml", "--image", "busybox"}, "either -f or --image"},
		{[]string{"run", "-f", "x.yaml", "a"}, "takes no arguments"},
		{[]string{"run", "--image", "busybox", "--timeout", "1500ms"}, "--timeout 1.5s: must be in whole seconds"},
		{[]string{"run", "--image", "busybox", "--memory", "much"}, `--memory "much": must be a quantity`},
		{[]string{"run", "--image", "bad image"}, `--image "bad image": invalid reference format: an image is named as [REGISTRY/]NAME[:TAG], such as busybox:1.36`},
		{[]string{"run", "--image", "BusyBox", "-d"}, `--image "BusyBox": invalid reference format: repository name (library/BusyBox) must be lowercase`},
		{[]string{"run", "--image", "busybox", "-o", "json"}, "-o json needs --detach"},
		{[]string{"run", "--image", "busybox", "--rm", "-d"}, "--detach has nobody"},
		{[]string{"wait"}, "needs a Job"},
		{[]string{"wait", "job/"}, `"job/" names no Job`},
		{[]string{"wait", "cronjob/a"}, `takes Jobs, but was given "cronjob/a"`},
		{[]string{"rerun", "a", "b"}, "takes one Job"},
		{[]string{"rerun", "a", "--replace", "--name", "b"}, "take one of them"},
		{[]string{"logs"}, "takes one Job, as job/NAME"},
		{[]string{"logs", "pod/x"}, `errand logs takes Jobs, but was given "pod/x"`},
		{[]string{"logs", "job/x", "-o", "xml"}, "must be json or yaml"},
	} {
		code, stdout, stderr := call(t, tc.args...)
		if code != command.ExitUsage || !strings.Contains(stderr, tc.want) || stdout != "" {
			t.Errorf("errand %s: exit code %d, stdout %q, stderr %q, want code %d and %q", strings.Join(tc.args, " "), code, stdout, stderr, command.ExitUsage, tc.want)
		}
	}
}

func TestFlagsOfFewValuesAreCompleted(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"image list -o", "json yaml :4"},
		{"run -o", "name json yaml :4"},
		{"rerun -o", "name json yaml :4"},
		{"run --restart", "Never OnFailure :4"},
		{"run --image-pull-policy", "Always IfNotPresent Never :4"},
	} {
		_, stdout, _ := call(t, append(append([]string{"__complete"}, strings.Fields(tc.args)...), "")...)
		if got := strings.Join(strings.Fields(stdout), " "); got != tc.want {
			t.Errorf("errand %s: %q, want %q", tc.args, got, tc.want)
		}
	}
}

func TestWithoutACommandItHelps(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"image"}, {"image", "--help"}, {"help"}, {"help", "image"}, {"completion"}} {
		code, stdout, stderr := call(t, args...)
		if code != command.ExitOK || !strings.Contains(stdout, "Available Commands:") || stderr != "" {
			t.Errorf("errand %v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

// errand drain starts a shim where none runs, so it must be told where serve
// was told.
func TestDrainTakesServesPrograms(t *testing.T) {
	for _, name := range []string{"runtime", "default-runtime", "shim"} {
		for _, cmd := range []*cobra.Command{newServe(), newDrain(), newDoctor()} {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("errand %s has no --%s", cmd.Name(), name)
			}
		}
	}
}
