package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"errand.dev/errand/internal/command"
)

// writeKubeconfig writes one with a context of that name, whose server nobody is.
func writeKubeconfig(t *testing.T, path, context string) {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters[context] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:1/" + context}
	c.Contexts[context] = &clientcmdapi.Context{Cluster: context, Namespace: "in-" + context}
	c.CurrentContext = context
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
}

// A command reaches this machine's errand, whatever $KUBECONFIG says, unless a flag
// says otherwise.
func TestWhichCluster(t *testing.T) {
	dir := t.TempDir()
	yours, theirs := filepath.Join(dir, "yours"), filepath.Join(dir, "theirs")
	writeKubeconfig(t, filepath.Join(dir, "kubeconfig"), "errand")
	writeKubeconfig(t, yours, "yours")
	writeKubeconfig(t, theirs, "theirs")
	t.Setenv("KUBECONFIG", yours+string(filepath.ListSeparator)+filepath.Join(dir, "none"))
	for name, tc := range map[string]struct {
		at                     cluster
		server, namespace, err string
	}{
		"errand's":         {cluster{}, "errand", "in-errand", ""},
		"a namespace":      {cluster{namespace: "mine"}, "errand", "mine", ""},
		"your own context": {cluster{context: "yours"}, "yours", "in-yours", ""},
		"a kubeconfig":     {cluster{kubeconfig: theirs}, "theirs", "in-theirs", ""},
		"both":             {cluster{kubeconfig: theirs, context: "theirs"}, "theirs", "in-theirs", ""},
		"no such context":  {cluster{context: "errand"}, "", "", `context "errand" does not exist`},
		"no such file":     {cluster{kubeconfig: filepath.Join(dir, "none")}, "", "", "none"},
		"no errand":        {cluster{dataDir: filepath.Join(dir, "elsewhere")}, "", "", "start one with errand serve"},
	} {
		t.Run(name, func(t *testing.T) {
			at := tc.at
			if at.dataDir == "" {
				at.dataDir = dir
			}
			_, err := at.connect(t.Output())
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil || at.server != "https://127.0.0.1:1/"+tc.server || at.namespace != tc.namespace || at.own != (tc.server == "errand") {
				t.Errorf("%+v, %v", at, err)
			}
		})
	}
}

// Each command says the same where there is no errand, also where a file stands.
func TestNoErrand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "typo")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file} {
		want := "errand: there is no errand at " + path + ": start one with errand serve, or name another's data directory by --data-dir or $ERRAND_DATA_DIR\n"
		for _, args := range [][]string{{"wait", "a"}, {"run", "--image", "busybox"}, {"rerun", "a"}, {"logs", "a"}, {"kubeconfig"}} {
			if code, _, stderr := call(t, append(args, "--data-dir", path)...); code != command.ExitError || stderr != want {
				t.Errorf("errand %s: exit code %d, %q, want %q", args, code, stderr, want)
			}
		}
	}
}

func TestAnErrandThatDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	writeKubeconfig(t, filepath.Join(dir, "kubeconfig"), "errand")
	const hint = "errand doesn't answer at https://127.0.0.1:1/errand: start it with errand serve: "
	for _, args := range [][]string{{"wait", "a"}, {"run", "--image", "busybox"}, {"rerun", "a"}} {
		code, _, stderr := call(t, append(args, "--data-dir", dir)...)
		if code != command.ExitError || !strings.Contains(stderr, hint) {
			t.Errorf("errand %s: exit code %d, %q", args, code, stderr)
		}
		// Of another cluster it knows no better.
		code, _, stderr = call(t, append(args, "--kubeconfig", filepath.Join(dir, "kubeconfig"))...)
		if code != command.ExitError || strings.Contains(stderr, "errand serve") || !strings.Contains(stderr, "connection refused") {
			t.Errorf("errand %s: exit code %d, %q", args, code, stderr)
		}
	}
}
