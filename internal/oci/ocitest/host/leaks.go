//go:build node

package host

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Leaks returns what is left of this host's containers: processes, cgroups, and files of the runtime directories given.
func (h *Host) Leaks(runtimeDirs ...string) []string {
	var found []string
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*" + h.CgroupParent)
	own, _ := filepath.Glob("/sys/fs/cgroup" + h.CgroupParent)
	for _, dir := range append(cgroups, own...) {
		found = append(found, "cgroup "+dir)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cgroup, _ := os.ReadFile(filepath.Join(p, "cgroup"))
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		// A zombie has no command line; it is its parent's business.
		if len(cmdline) > 0 && (strings.Contains(string(cgroup), h.CgroupParent) || strings.Contains(string(cmdline), h.Dir+"/")) {
			found = append(found, "process "+filepath.Base(p)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	for _, dir := range runtimeDirs {
		// The shim's own files may remain, and the directories of all containers and of each OCI runtime.
		own := []string{"shim.lock", "shim.sock", "shim.log", "start.lock"}
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && path != dir && (!d.IsDir() && !slices.Contains(own, d.Name()) || d.IsDir() && filepath.Dir(path) != dir) {
				found = append(found, "file "+path)
			}
			return nil
		})
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.Dir+"/") {
			found = append(found, "mount "+line)
		}
	}
	return found
}

// checkLeaks is the end of every test.
func (h *Host) checkLeaks() {
	runtimeDir := filepath.Join(h.Dir, "run")
	for _, l := range h.Leaks(runtimeDir) {
		h.t.Errorf("left behind: %s", l)
	}
}
