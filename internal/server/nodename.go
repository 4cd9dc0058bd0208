package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/atomicfile"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/version"
)

// nodeNameFile holds the Node's name, in the data directory.
const nodeNameFile = "node-name"

// nodeName is what the Node of a data directory is called. Pods are bound to it
// for good, so it stays when the host is renamed, by DHCP for instance, or when
// the directory moves to another one: only --node-name changes it.
type nodeName struct {
	current string
	// former is the name before, if --node-name has just changed it.
	former string
	// first says that the data directory has no name yet: its Node, if the store has
	// one, is another directory's, of which this is the restored backup.
	first bool
	// path is the file that holds the name.
	path string
}

// chooseNodeName is the name that the user gave, the one of last time, or at
// first the host's in the form that object names have, as the kubelet takes it.
func chooseNodeName(o Options, dir *datadir.Dir) (nodeName, error) {
	path := dir.Path(nodeNameFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nodeName{}, fmt.Errorf("read the node's name: %w", err)
	}
	kept := strings.TrimSpace(string(b))
	n := nodeName{current: kept, path: path}
	switch {
	case o.NodeName != "":
		n.current = o.NodeName
	case kept == "":
		if n.current, err = hostName(); err != nil {
			return nodeName{}, err
		}
	}
	n.first = kept == ""
	if !n.first && n.current != kept {
		n.former = kept
	}
	return n, nil
}

func (n nodeName) keep() error { return atomicfile.Write(n.path, []byte(n.current+"\n"), 0o600) }

func hostName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read the host's name: %w", err)
	}
	name := strings.ToLower(strings.TrimSpace(host))
	if name == "" {
		return "", errors.New("the host has no name: set one, or give --node-name")
	}
	return name, nil
}

// retire deletes the Nodes of before, which nobody runs any more: pods would be
// bound to them, and those that are would seem to run for ever. Only then the
// new name is kept, so that a crash in between leaves nothing behind. Whether the
// store is nobody else's says own.
func (n nodeName) retire(ctx context.Context, client kubernetes.Interface, own bool) error {
	former := []string{}
	if n.former != "" {
		former = append(former, n.former)
	}
	if n.first && own {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list nodes: %w", err)
		}
		for i := range nodes.Items {
			// A node of the user's own, which has a kubelet, is alive as far as is known.
			if node := &nodes.Items[i]; node.Name != n.current && version.IsNode(node.Status.NodeInfo.KubeletVersion) {
				former = append(former, node.Name)
			}
		}
	}
	for _, name := range former {
		if err := client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the node's former object %s: %w", name, err)
		}
	}
	if !n.first && n.former == "" {
		return nil
	}
	return n.keep()
}
