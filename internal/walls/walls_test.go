package walls

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "errand.dev/errand/"

// wall says what the packages below a path must not lean on, directly or
// through others.
type wall struct {
	// below is a path in this module; it and all below it are meant.
	below string
	// never are import paths, with all below them.
	never []string
	// but are import paths, with all below them, that may be leaned on though
	// they are below never.
	but []string
	// only, where it is set, turns the wall round: everything else is
	// forbidden, but for the standard library and what is below below itself.
	only []string
	why  string
}

var walls = []wall{
	{
		below: "internal/jobs",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/server", module + "internal/cli"},
		why:   "the Job engine runs on any cluster, with kubernetes.Interface and informers alone",
	},
	{
		below: "internal/jobrun",
		never: []string{strings.TrimSuffix(module, "/"), "k8s.io/kubernetes", "k8s.io/kubectl", "k8s.io/cli-runtime", "k8s.io/apiserver", "k8s.io/component-base", "github.com/spf13"},
		but:   []string{module + "internal/jobrun"},
		why:   "it is a client of any cluster's, of the API's types and client-go alone",
	},
	{
		below: "internal/clusterengine",
		never: []string{
			module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/controllers",
			module + "internal/binder", module + "internal/server", module + "internal/cli", "k8s.io/kubernetes", "go.etcd.io",
		},
		why: "errand controller is the Job engine and a client, and nothing of a cluster or a node",
	},
	{
		below: "cmd/errand-controller",
		never: []string{
			module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/controllers",
			module + "internal/binder", module + "internal/server", "k8s.io/kubernetes", "k8s.io/apiserver/pkg/server", "k8s.io/kubectl", "go.etcd.io", "github.com/containerd",
		},
		why: "what runs in a cluster's pod has the memory, and what can be attacked, of a client alone",
	},
	{
		below: "internal/binder",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/jobs"},
		why:   "the binder sees nodes and pods as API objects",
	},
	{
		below: "internal/clusterdns",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/jobs", module + "internal/server", module + "internal/cli"},
		why:   "names are made from API objects and an address to listen at",
	},
	{
		below: "internal/node",
		never: []string{module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/jobs", module + "internal/server", module + "internal/cli", "k8s.io/kubernetes/pkg/kubelet/kuberuntime", "k8s.io/kubernetes/cmd"},
		but:   []string{"k8s.io/kubernetes/pkg/kubelet/kuberuntime/util"}, // a few functions on statuses, by way of the eviction manager
		why:   "the node sees containers through the CRI's interfaces alone, so that any runtime serves",
	},
	{
		below: "internal/cri",
		never: []string{module + "internal/node", module + "internal/jobs", module + "internal/apiserver", "k8s.io/api/core", "k8s.io/api/batch", "k8s.io/client-go/kubernetes", "k8s.io/kubernetes"},
		why:   "the runtime serves CRI clients, which need not be errand's node",
	},
	{
		below: "internal/criclient",
		never: []string{
			module + "internal/node", module + "internal/cri/images", module + "internal/cri/network", module + "internal/oci/native", module + "internal/oci/shim/launch",
			module + "internal/jobs", module + "internal/apiserver", module + "internal/server", "k8s.io/api/core", "k8s.io/client-go/kubernetes", "k8s.io/kubernetes",
		},
		why: "it is a runtime as its clients see one, and none of errand's",
	},
	{
		below: "internal/oci",
		never: []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "k8s.io/cri-api", "k8s.io/kubernetes", module + "internal/cri", module + "internal/node"},
		why:   "the shim's side of the house knows OCI only",
	},
	{
		below: "cmd/errand-shim",
		only:  []string{module + "internal/oci", "golang.org/x/sys"},
		why:   "the parent of all containers stays tiny and starts in milliseconds",
	},
	{
		below: "internal/apiserver",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/jobs", module + "internal/server", module + "internal/cli"},
		why:   "the API knows nothing of who uses it",
	},
	{
		below: "internal/localvolumes",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/controllers", module + "internal/jobs"},
		why:   "it makes directories, and mounts nothing",
	},
	{
		below: "internal/fstree",
		only:  []string{"golang.org/x/sys"},
		why:   "it knows files, and nothing of what they are for",
	},
	{
		below: "internal/controllers",
		never: []string{module + "internal/node", module + "internal/cri", module + "internal/oci", module + "internal/apiserver", module + "internal/jobs"},
		why:   "upstream's controllers run on any API",
	},
}

type listed struct {
	ImportPath string
	Standard   bool
	Deps       []string
}

func TestWalls(t *testing.T) {
	packages := list(t)
	for _, w := range walls {
		t.Run(w.below, func(t *testing.T) {
			seen := false
			for path, p := range packages {
				if !within(path, module+w.below) {
					continue
				}
				seen = true
				for _, dep := range p.Deps {
					if w.forbids(dep, packages[dep].Standard) {
						t.Errorf("%s leans on %s, but %s", path, dep, w.why)
					}
				}
			}
			if !seen {
				t.Errorf("there is no package below %s: does the wall still stand where it should?", w.below)
			}
		})
	}
}

func (w wall) forbids(dep string, standard bool) bool {
	if w.only != nil {
		return !standard && !within(dep, module+w.below) && !withinAny(dep, w.only)
	}
	return withinAny(dep, w.never) && !withinAny(dep, w.but)
}

func TestForbids(t *testing.T) {
	never := wall{below: "internal/a", never: []string{module + "internal/b"}, but: []string{module + "internal/b/d"}}
	only := wall{below: "cmd/a", only: []string{"golang.org/x/sys"}}
	for _, tc := range []struct {
		w        wall
		dep      string
		standard bool
		want     bool
	}{
		{never, module + "internal/b", false, true},
		{never, module + "internal/b/c", false, true},
		{never, module + "internal/b/d", false, false},
		{never, module + "internal/bc", false, false},
		{never, "fmt", true, false},
		{only, "golang.org/x/sys/unix", false, false},
		{only, "golang.org/x/system", false, true},
		{only, module + "cmd/a/sub", false, false},
		{only, "fmt", true, false},
	} {
		if got := tc.w.forbids(tc.dep, tc.standard); got != tc.want {
			t.Errorf("%s forbids %s: %v, want %v", tc.w.below, tc.dep, got, tc.want)
		}
	}
}

func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func withinAny(path string, roots []string) bool {
	for _, r := range roots {
		if within(path, r) {
			return true
		}
	}
	return false
}

// list reads every package of the module with all it leans on.
func list(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Deps", "errand.dev/errand/cmd/...", "errand.dev/errand/internal/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("read go list's output: %v", err)
		}
		packages[p.ImportPath] = p
	}
}
