//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// What an administrator has given the Node besides what the machine has bounds how
// many pods run at once, also after errand has been stopped and started.
func TestExtendedResources(t *testing.T) {
	e := start(t)
	node := e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	licensed := func(name string, g *gate) string {
		return strings.Replace(job(name, knockGate+"; while ! test -e /gate/done; do sleep 0.1; done")+g.mount(),
			"image: busybox:latest", "image: busybox:latest\n        resources: {limits: {example.com/licence: 1}}", 1)
	}
	e.kubectl("patch", "node", node, "--subresource=status", "-p", `{"status":{"capacity":{"example.com/licence":"1"}}}`)
	e.wait(`jsonpath={.status.allocatable.example\.com/licence}=1`, "node/"+node)

	first, second := newGate(t), newGate(t)
	e.apply(licensed("first", first))
	first.arrived()
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.apply(licensed("second", second))
	if got, want := e.awaitEvent(e.podBesides("second", ""), "FailedScheduling"), "0/1 nodes are available: 1 Insufficient example.com/licence."; !strings.HasPrefix(got, want) {
		t.Errorf("FailedScheduling says %q, want %q", got, want)
	}
	first.touch("done")
	e.wait("condition=Complete", "job/first")
	second.arrived()
	second.touch("done")
	e.wait("condition=Complete", "job/second")

}
