package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// errandConfig is a kubeconfig as errand writes it.
func errandConfig(server string) *clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters["errand"] = &clientcmdapi.Cluster{Server: server}
	c.AuthInfos["errand"] = &clientcmdapi.AuthInfo{Token: "t"}
	c.Contexts["errand"] = &clientcmdapi.Context{Cluster: "errand", AuthInfo: "errand"}
	c.CurrentContext = "errand"
	return c
}

func TestMergeKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	theirs := clientcmdapi.NewConfig()
	theirs.Clusters["work"] = &clientcmdapi.Cluster{Server: "https://work"}
	theirs.CurrentContext = "work"
	if err := clientcmd.WriteToFile(*theirs, real); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "config")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"https://old", "https://new"} {
		if err := mergeKubeconfig(errandConfig(server), link, owner{-1, -1}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	got, err := clientcmd.LoadFromFile(real)
	if err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "work" || got.Clusters["work"].Server != "https://work" || got.Clusters["errand"].Server != "https://new" {
		t.Errorf("merged: %+v", got)
	}
}

// Whose kubeconfig has another cluster by the name of errand's keeps it.
func TestMergeLeavesOthersOfItsName(t *testing.T) {
	config := func(server, ca string) *clientcmdapi.Config {
		c := errandConfig(server)
		c.Clusters["errand"].CertificateAuthorityData = []byte(ca)
		return c
	}
	elsewhere := config("https://other", "other")
	elsewhere.Clusters["work"] = elsewhere.Clusters["errand"]
	delete(elsewhere.Clusters, "errand")
	elsewhere.Contexts["errand"].Cluster = "work"
	for name, tc := range map[string]struct {
		there   *clientcmdapi.Config
		refuses bool
	}{
		"nothing":                            {clientcmdapi.NewConfig(), false},
		"the same":                           {config("https://own", "own"), false},
		"listened elsewhere":                 {config("https://other", "own"), false},
		"had another data directory":         {config("https://own", "other"), false},
		"another":                            {config("https://other", "other"), true},
		"another cluster of another context": {elsewhere, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			into := filepath.Join(dir, "config")
			if err := clientcmd.WriteToFile(*tc.there, into); err != nil {
				t.Fatal(err)
			}
			if err := clientcmd.WriteToFile(*config("https://own", "own"), filepath.Join(dir, "kubeconfig")); err != nil {
				t.Fatal(err)
			}
			merge := func(more ...string) (int, string) {
				code, _, stderr := call(t, append([]string{"kubeconfig", "--data-dir", dir, "--merge", "--into", into}, more...)...)
				return code, stderr
			}
			if code, stderr := merge(); (code != 0) != tc.refuses || tc.refuses && !strings.Contains(stderr, "https://other") {
				t.Errorf("exit code %d, %s", code, stderr)
			}
			if code, stderr := merge("--context", "mine"); code != 0 {
				t.Errorf("by another name: exit code %d, %s", code, stderr)
			}
			got, err := clientcmd.LoadFromFile(into)
			if err != nil {
				t.Fatal(err)
			}
			if got.Clusters["mine"] == nil || got.Clusters["mine"].Server != "https://own" || got.Contexts["mine"].AuthInfo != "mine" {
				t.Errorf("merged by another name: %+v", got.Contexts["mine"])
			}
			if tc.refuses && got.Clusters[got.Contexts["errand"].Cluster].Server != "https://other" {
				t.Error("the other's context is lost")
			}
			if code, stderr := merge("--context", "errand"); code != 0 {
				t.Errorf("by the same name: exit code %d, %s", code, stderr)
			}
		})
	}
}

func TestMergeByRootGivesTheFileToItsUser(t *testing.T) {
	theirs, callers := owner{1234, 1235}, owner{4321, 4322}
	if os.Geteuid() != 0 { // who can't give files away gives them to themselves
		theirs = owner{os.Getuid(), os.Getgid()}
		callers = theirs
	}
	dir := t.TempDir()
	existing := filepath.Join(dir, "existing")
	if err := clientcmd.WriteToFile(*clientcmdapi.NewConfig(), existing); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(existing, theirs.uid, theirs.gid); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "home", ".kube", "config")
	for _, tc := range []struct {
		into  string
		owned []string
		want  owner
	}{
		{existing, []string{existing}, theirs},
		{made, []string{made, filepath.Dir(made), filepath.Join(dir, "home")}, callers},
	} {
		if err := mergeKubeconfig(errandConfig("https://x"), tc.into, callers); err != nil {
			t.Fatal(err)
		}
		for _, path := range tc.owned {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			stat := info.Sys().(*syscall.Stat_t)
			if got := (owner{int(stat.Uid), int(stat.Gid)}); got != tc.want {
				t.Errorf("%s belongs to %+v, want %+v", path, got, tc.want)
			}
		}
	}
}

func TestBySudoTheKubeconfigIsTheUsers(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", "/nobody's")
	t.Setenv("SUDO_UID", strconv.Itoa(os.Getuid()))
	t.Setenv("SUDO_GID", strconv.Itoa(os.Getgid()))
	got := userKubeconfig()
	if bySudo := !strings.HasPrefix(got, "/nobody's/"); bySudo != (os.Geteuid() == 0) {
		t.Errorf("as user %d by sudo: %s", os.Geteuid(), got)
	}
	t.Setenv("SUDO_UID", "")
	if got := userKubeconfig(); got != "/nobody's/.kube/config" {
		t.Errorf("without sudo: %s", got)
	}
}
