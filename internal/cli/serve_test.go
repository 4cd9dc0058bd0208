package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"errand.dev/errand/internal/server"
)

func TestFlagsWinOverTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "errand.yaml")
	file := `listen: 127.0.0.1:1
maxPods: 5
node: false
etcd: {servers: ["http://a:1"]}
runtimes: {runc: /file/runc, crun: /file/crun}
evictionHard: {memory.available: 1Gi, nodefs.available: 1%}
evictionSoft: {memory.available: 2Gi}
evictionSoftGracePeriod: {memory.available: 1m}
`
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	o := server.DefaultOptions()
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addServeFlags(f, &o)
	args := []string{"--listen=[::1]:2", "--node", "--etcd-servers=http://b:1,http://c:1", "--runtime=runc=/flag/runc", "--eviction-hard=memory.available<2Gi,pid.available<1%"}
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := readConfig(f, &o, path); err != nil {
		t.Fatal(err)
	}
	want := server.DefaultOptions()
	want.Listen = "[::1]:2"
	want.MaxPods = 5
	want.Etcd.Servers = []string{"http://b:1", "http://c:1"}
	want.Runtimes = map[string]string{"runc": "/flag/runc", "crun": "/file/crun"}
	want.EvictionHard = map[string]string{"memory.available": "2Gi", "pid.available": "1%"}
	want.EvictionSoft = map[string]string{"memory.available": "2Gi"}
	want.EvictionSoftGracePeriod = map[string]string{"memory.available": "1m"}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}
