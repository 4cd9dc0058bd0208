//go:build e2e

package e2e

import (
	"fmt"
	"strings"
)

// job writes a Job's manifest: spec is the lines of its spec, script what its
// one container's shell runs.
func job(name, script string, spec ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: %s\nspec:\n", name)
	for _, line := range spec {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, `  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers:
      - name: work
        image: busybox:latest
        imagePullPolicy: IfNotPresent
        command: ["sh", "-c", %q]
`, script)
	return b.String()
}
