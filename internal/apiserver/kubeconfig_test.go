package apiserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/internal/apiserver/pki"
)

func TestOthersKubeconfigIsLeftAlone(t *testing.T) {
	certs, err := pki.Open(pki.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	for range 2 { // errand's own is replaced
		if err := writeKubeconfig(path, "https://127.0.0.1:1", certs); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ content, want string }{
		"other clusters": {"apiVersion: v1\nkind: Config\ncontexts: [{name: production, context: {cluster: c, user: u}}]\n", `"production"`},
		"something else": {"[Unit]\nDescription=x\n", "no kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := writeKubeconfig(path, "https://127.0.0.1:1", certs)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one that names the file and says %s", err, tc.want)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tc.content {
				t.Errorf("the file is now %q, %v", b, err)
			}
		})
	}
}

// On this machine, long lists come unpacked; over a network, packed.
func TestCompressionFollowsTheAddress(t *testing.T) {
	certs, err := pki.Open(pki.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]bool{"https://127.0.0.1:1": true, "https://[::1]:1": true, "https://192.0.2.1:1": false} {
		path := filepath.Join(t.TempDir(), "config")
		if err := writeKubeconfig(path, server, certs); err != nil {
			t.Fatal(err)
		}
		cfg, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.DisableCompression != want {
			t.Errorf("%s: compression off: %t", server, cfg.DisableCompression)
		}
	}
}
