package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"errand.dev/errand/internal/datadir"
)

func TestTheNodesNameStays(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	path := dir.Path(nodeNameFile)
	choose := func(given string, want nodeName) {
		t.Helper()
		want.path = path
		got, err := chooseNodeName(Options{NodeName: given}, dir)
		if err != nil || got != want {
			t.Errorf("given %q: %+v, %v, want %+v", given, got, err, want)
		}
	}
	choose("", nodeName{current: strings.ToLower(host), first: true})
	// The host gets another name.
	if err := os.WriteFile(path, []byte("of-before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	choose("", nodeName{current: "of-before"})
	choose("given", nodeName{current: "given", former: "of-before"})
	// As long as the former Node may still be there, it is remembered.
	choose("given", nodeName{current: "given", former: "of-before"})

	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "of-before"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "given"}},
	)
	for range 2 { // a start that was cut short is followed by another
		n := nodeName{current: "given", former: "of-before", path: path}
		if err := n.retire(t.Context(), client, true); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "given" {
		t.Errorf("the nodes are %v, %v", nodes.Items, err)
	}
	choose("", nodeName{current: "given"})
}

// A backup may be restored on a machine of another name, and its data directory
// knows nothing of the one before.
func TestARestoredStoreHasNoOtherNodes(t *testing.T) {
	for name, tc := range map[string]struct {
		first, own bool
		want       []string
	}{
		"restored":                 {true, true, []string{"kubelets", "now"}},
		"as it was":                {false, true, []string{"before", "kubelets", "now"}},
		"a store of several users": {true, false, []string{"before", "kubelets", "now"}},
	} {
		t.Run(name, func(t *testing.T) {
			node := func(name, version string) *corev1.Node {
				return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: version}}}
			}
			client := fake.NewClientset(node("before", "v1.37.2+errand.0.1.0"), node("kubelets", "v1.37.2"), node("now", "v1.37.2+errand.0.1.0"))
			n := nodeName{current: "now", first: tc.first, path: filepath.Join(t.TempDir(), nodeNameFile)}
			if err := n.retire(t.Context(), client, tc.own); err != nil {
				t.Fatal(err)
			}
			nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, node := range nodes.Items {
				got = append(got, node.Name)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("there are %q, want %q", got, tc.want)
			}
			if _, err := os.Stat(n.path); (err == nil) != tc.first {
				t.Errorf("the name was kept: %v", err)
			}
		})
	}
}
