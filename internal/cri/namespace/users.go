package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/kernelversion"
	"github.com/containerd/containerd/v2/pkg/sys"

	"errand.dev/errand/internal/cri/idmap"
)

// ProbeUsers says why sandboxes can't have user namespaces: the kernel hasn't what
// they need, the file system of the directory files can't map owners, or pods'
// roots can't reach the directory bundles.
func (d *Dir) ProbeUsers(files, bundles string) error {
	if dir := closedTo(bundles); dir != "" {
		return fmt.Errorf("root of such a pod can't reach %s, since users other than the owner can't go through %s: chmod o+x it", bundles, dir)
	}
	// Overlays have had mapped lower directories since.
	if ok, err := kernelversion.GreaterEqualThan(kernelversion.KernelVersion{Kernel: 5, Major: 19}); err != nil || !ok {
		return errors.Join(errors.New("images whose files' owners are mapped need Linux 5.19"), err)
	}
	const some = "0:65536:65536"
	err := sys.UnshareAfterEnterUserns(some, some, 0, func(pid int) error {
		return idmap.Check(files, fmt.Sprintf("/proc/%d/ns/%s", pid, User))
	})
	if err != nil {
		return fmt.Errorf("a user namespace was tried: %w", err)
	}
	return nil
}

// closedTo returns the first directory on path, from its end, that other users
// can't go through, as a pod's root must where the OCI runtime makes its
// containers; "" for none.
func closedTo(path string) string {
	for dir := path; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			return dir
		}
	}
	return ""
}
