package server

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Programs are the executables that errand starts.
type Programs struct {
	// Shim is the path of errand-shim, or empty where there is none.
	Shim string
	// Runtimes are the OCI runtimes by RuntimeClass handler.
	Runtimes map[string]string
	// Default is the key of Runtimes for pods without a RuntimeClass, or empty
	// where there is no runtime.
	Default string
}

// The oldest OCI runtimes that serve: older cruns fail on hybrid cgroups, older
// runcs leak file descriptors into containers (CVE-2024-21626).
var oldestRuntimes = []struct {
	name    string
	version [3]int
}{
	// crun comes first: it starts a container in a quarter of runc's CPU time.
	{"crun", [3]int{1, 21, 0}},
	{"runc", [3]int{1, 1, 12}},
}

// versionTimeout bounds the wait for a runtime to tell its version.
const versionTimeout = 5 * time.Second

// FindPrograms finds what o doesn't name: beside errand's own executable, in
// ../libexec/errand, then by $PATH.
func FindPrograms(o Options) Programs {
	p := Programs{Shim: o.Shim, Runtimes: o.Runtimes, Default: o.DefaultRuntime}
	if p.Shim == "" {
		if found := candidates("errand-shim"); len(found) > 0 {
			p.Shim = found[0]
		}
	}
	if len(p.Runtimes) == 0 {
		p.Runtimes = findRuntimes()
	}
	if p.Default == "" {
		p.Default = defaultRuntime(p.Runtimes)
	}
	return p
}

// findRuntimes finds of each runtime the first that is new enough.
func findRuntimes() map[string]string {
	found := map[string]string{}
	for _, r := range oldestRuntimes {
		for _, path := range candidates(r.name) {
			if v, ok := runtimeVersion(path); ok && !older(v, r.version) {
				found[r.name] = path
				break
			}
		}
	}
	return found
}

// defaultRuntime is the first known runtime that is there, or the only one.
func defaultRuntime(runtimes map[string]string) string {
	for _, r := range oldestRuntimes {
		if _, ok := runtimes[r.name]; ok {
			return r.name
		}
	}
	if len(runtimes) == 1 {
		for name := range runtimes {
			return name
		}
	}
	return ""
}

// candidates are the executables of that name, nearest first.
func candidates(name string) []string {
	var found []string
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, "..", "libexec", "errand", name)} {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				found = append(found, filepath.Clean(path))
			}
		}
	}
	if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) {
		found = append(found, path)
	}
	return found
}

// runtimeVersion reads "runc version 1.5.2" or "crun version 1.21".
func runtimeVersion(path string) (v [3]int, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return v, false
	}
	return parseVersion(string(out))
}

func parseVersion(out string) (v [3]int, ok bool) {
	line, _, _ := strings.Cut(out, "\n")
	_, text, ok := strings.Cut(line, " version ")
	if !ok {
		return v, false
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "-")
	text, _, _ = strings.Cut(text, "+")
	for i, part := range strings.SplitN(text, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
