//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"errand.dev/errand/test/registry"
)

// On a disk that is nearly full, the images go that no pod needs, as soon as the
// pod has gone; those of a pod that runs stay, whatever the disk's use.
func TestImagesMakeRoom(t *testing.T) {
	dir := smallDisk(t)
	e := startIn(t, filepath.Join(dir, "data"), "--image-minimum-gc-age=0s", "--eviction-hard=")
	busybox, err := registry.BusyboxImage(registry.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := registry.Extend(busybox, func(*imagev1.Config) {}, registry.File{Name: "kept", Body: []byte("kept\n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/kept:1", kept); err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]string{
		"runs":  `{name: work, image: "kept:1", command: [sleep, "3600"]}`,
		"first": `{name: work, image: "busybox:latest", command: ["true"]}`,
	} {
		e.applyPod(name, "\n  containers: ["+spec+"]\n")
	}
	e.wait("condition=Ready", "pod/runs")
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/first")
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
	imageList := func() string {
		t.Helper()
		out, err := e.errandCommand("image", "list")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if before := imageList(); !strings.Contains(before, "busybox") {
		t.Fatalf("there is no image before:\n%s", before)
	}
	e.kubectl("delete", "pod", "first")
	// The image goes, but can't make enough room, which is said.
	if got := e.awaitEvent(e.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"), "FreeDiskSpaceFailed"); !strings.HasPrefix(got, "Insufficient free disk space on the node's image filesystem (9") {
		t.Errorf("FreeDiskSpaceFailed says %q", got)
	}
	left := imageList()
	if strings.Contains(left, "busybox") {
		t.Errorf("the image is still there:\n%s", left)
	}
	if !strings.Contains(left, "library/kept") {
		t.Errorf("the image of a pod that runs is gone:\n%s", left)
	}
	if got := e.kubectl("exec", "runs", "--", "cat", "/kept"); got != "kept\n" {
		t.Errorf("the pod that runs has lost a file of its image: %q", got)
	}
}
