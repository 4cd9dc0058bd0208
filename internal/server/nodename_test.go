package server

import (
	"os"
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
	choose("", nodeName{current: strings.ToLower(host)})
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
		if err := n.retireFormer(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "given" {
		t.Errorf("the nodes are %v, %v", nodes.Items, err)
	}
	choose("", nodeName{current: "given"})
}
