package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
)

func TestTalksToCluster(t *testing.T) {
	for args, want := range map[string]bool{
		"get jobs":              true,
		"-n a get jobs":         true,
		"version":               true,
		"version -o json":       true,
		"version --client":      false,
		"version --client=true": false,
		"get --help":            false,
		"help get":              false,
		"config view":           false,
		"completion bash":       false,
		"":                      false,
	} {
		if got := talksToCluster(strings.Fields(args)); got != want {
			t.Errorf("kubectl %s: %t, want %t", args, got, want)
		}
	}
}

// Where no errand is, kubectl must not look for a cluster at localhost:8080.
func TestKubectlWithoutAnErrandSaysSo(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "data")
	t.Setenv(dataDirEnv, nowhere)
	t.Setenv("KUBECONFIG", "")
	for _, args := range [][]string{{"kubectl", "version"}, {"kubectl", "get", "jobs"}} {
		code, _, stderr := call(t, args...)
		if code != command.ExitError || !strings.Contains(stderr, "there is no errand at "+nowhere+": start one with errand serve, or name another's data directory by $ERRAND_DATA_DIR\n") {
			t.Errorf("errand %v: exit code %d, %s", args, code, stderr)
		}
	}
}

func TestKubectlCompletes(t *testing.T) {
	t.Setenv(dataDirEnv, t.TempDir())
	t.Setenv("KUBECONFIG", "")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"kubectl", "desc"}, "describe"},
		{[]string{"kubectl", "config", "use-c"}, "use-context"},
		{[]string{"kubectl", "get", "--output-w"}, "--output-watch-events"},
	} {
		code, stdout, stderr := call(t, append([]string{cobra.ShellCompRequestCmd}, tc.args...)...)
		var found []string
		for line := range strings.Lines(stdout) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			found = append(found, name)
		}
		if code != command.ExitOK || !slices.Contains(found, tc.want) {
			t.Errorf("errand %v <TAB>: exit code %d, %q %s, want %s", tc.args, code, found, stderr, tc.want)
		}
	}
	if got := os.Getenv("KUBECONFIG"); got != filepath.Join(defaultDataDir(), "kubeconfig") {
		t.Errorf("it looked in %q", got)
	}
}
