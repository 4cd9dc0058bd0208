//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// On a disk that is nearly full, the images go that no pod needs, as soon as the
// pod has gone.
func TestImagesMakeRoom(t *testing.T) {
	dir := smallDisk(t)
	e := startIn(t, filepath.Join(dir, "data"), "--image-minimum-gc-age=0s", "--eviction-hard=")
	e.runPod("first", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
	// Fill the disk, but leave what the store of objects needs.
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fallocate(int(fill.Fd()), 0, 0, int64(st.Bavail-st.Blocks/10)*st.Bsize); err != nil {
		t.Fatal(err)
	}
	images := func() string {
		t.Helper()
		out, err := e.errandCommand("image", "list")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if !strings.Contains(images(), "busybox") {
		t.Fatalf("there is no image before:\n%s", images())
	}
	e.kubectl("delete", "pod", "first")
	// The image goes, but can't make enough room, which is said.
	if got := e.awaitEvent(e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"), "FreeDiskSpaceFailed"); !strings.HasPrefix(got, "Insufficient free disk space on the node's image filesystem (9") {
		t.Errorf("FreeDiskSpaceFailed says %q", got)
	}
	if strings.Contains(images(), "busybox") {
		t.Errorf("the image is still there:\n%s", images())
	}
}
