//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// A container's log takes no more of the disk than it may, and who follows it
// misses nothing and reads nothing twice.
func TestLogRotation(t *testing.T) {
	const size, files, lines = 64 << 10, 50, 20000
	e := start(t, "--container-log-max-size=64Ki", fmt.Sprint("--container-log-max-files=", files))
	g := newGate(t)
	e.applyPod("talks", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "%s; seq %d; %s; echo end"], volumeMounts: [%s]}]
  volumes: [%s]
`, passGate, lines, passGate, gateMount, g.volume()))
	e.wait("condition=Ready", "pod/talks")
	log, err := e.client.CoreV1().Pods("default").GetLogs("talks", &v1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	g.open(2)
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
	}
	want.WriteString("end\n")
	if got, err := io.ReadAll(log); err != nil || string(got) != want.String() {
		t.Errorf("followed, the log has %d bytes, want %d: %v", len(got), want.Len(), err)
	}
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/talks")

	dirs, err := filepath.Glob(filepath.Join(e.cfg.DataDir, "logs/pods/default_talks_*/work"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("log directories %v, %v", dirs, err)
	}
	entries, err := os.ReadDir(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < 3 || len(entries) > files {
		t.Errorf("the log has %d files", len(entries))
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			t.Errorf("%s has %d bytes", entry.Name(), info.Size())
		}
	}
	// Without -f it is the current file that is read.
	if got := e.kubectl("logs", "talks"); !strings.HasSuffix(want.String(), got) || len(got) > size {
		t.Errorf("kubectl logs has %d bytes, not the end of the log", len(got))
	}
}
