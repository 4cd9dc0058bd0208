package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"errand.dev/errand/internal/oci/shim/launch"
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
	// PassedOver tells of those that were found and passed over, and TooOldNamed of
	// those that the user named, in words. Both are empty if all is well.
	PassedOver, TooOldNamed []string
}

// release is the version of a program: major, minor, patch.
type release [3]int

func (r release) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2]), ".0")
}

// The oldest OCI runtimes that serve: older cruns fail on hybrid cgroups, older
// runcs leak file descriptors into containers (CVE-2024-21626). This is the one
// place that says so; scripts/runc.sh reads it here.
var oldestRuntimes = []struct {
	name    string
	version release
}{
	// crun comes first: it starts a container in a quarter of runc's CPU time.
	{"crun", release{1, 21, 0}},
	{"runc", release{1, 1, 12}},
}

// OldestRuntimes says in words which OCI runtimes serve.
func OldestRuntimes() string {
	var words []string
	for _, r := range oldestRuntimes {
		words = append(words, fmt.Sprintf("%s %s", r.name, r.version))
	}
	return strings.Join(words, " or ")
}

// versionTimeout bounds the wait for a runtime to tell its version: far more than
// that takes on a machine that has just booted and does everything at once, so that
// only a hang meets it.
const versionTimeout = time.Minute

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
		p.findRuntimes()
	}
	for name, path := range o.Runtimes {
		program, version, err := runtimeVersion(path)
		if err != nil {
			continue // not of those that we know; or it doesn't run, which its first use tells
		}
		if why := tooOld(program, version, path); why != "" {
			p.TooOldNamed = append(p.TooOldNamed, fmt.Sprintf("--runtime %s: %s", name, why))
		}
	}
	slices.Sort(p.TooOldNamed)
	if p.Default == "" {
		p.Default = defaultRuntime(p.Runtimes)
	}
	return p
}

// serve returns an error where errand can't run pods with these programs. Native says
// that it may start ordinary containers itself, and then needs no OCI runtime for them.
func (p Programs) serve(native bool) error {
	if err := p.haveShim(); err != nil {
		return err
	}
	switch {
	case len(p.TooOldNamed) > 0:
		return fmt.Errorf("%s: install a newer one", strings.Join(p.TooOldNamed, "; "))
	case p.Default == "" && len(p.Runtimes) > 0:
		return errors.New("none of the OCI runtimes is the one for pods without a RuntimeClass: name it with --default-runtime")
	case p.Default != "":
		return nil
	case !native:
		return fmt.Errorf("%s: %s, or leave out --native-launcher=false", p.noRuntime(), runtimeRemedy())
	}
	if err := launch.Supported(); err != nil {
		return fmt.Errorf("%s: %s, since errand can't start containers itself here: %w", p.noRuntime(), runtimeRemedy(), err)
	}
	return nil
}

// haveShim returns an error where there is no errand-shim.
func (p Programs) haveShim() error {
	if p.Shim == "" {
		return errors.New("errand-shim is neither beside errand nor in $PATH: install it there, or name it with --shim")
	}
	return nil
}

// Note says which pods can't be run with these programs, if all others can.
func (p Programs) Note() string {
	if p.Default != "" {
		return ""
	}
	return fmt.Sprintf("%s: pods that errand doesn't start itself can't run, such as privileged ones; %s", p.noRuntime(), runtimeRemedy())
}

func (p Programs) noRuntime() string {
	if len(p.PassedOver) > 0 {
		return fmt.Sprintf("no OCI runtime was found that serves (%s)", strings.Join(p.PassedOver, "; "))
	}
	return "no OCI runtime was found"
}

func runtimeRemedy() string {
	return fmt.Sprintf("install %s or newer, or name one with --runtime", OldestRuntimes())
}

// findRuntimes finds of each runtime the first that serves.
func (p *Programs) findRuntimes() {
	p.Runtimes = map[string]string{}
	for _, r := range oldestRuntimes {
		for _, path := range candidates(r.name) {
			program, version, err := runtimeVersion(path)
			if err != nil {
				p.PassedOver = append(p.PassedOver, err.Error())
				continue
			}
			if why := tooOld(program, version, path); why != "" {
				p.PassedOver = append(p.PassedOver, why)
				continue
			}
			if why := unfitForHybrid(program, path, unifiedControllers); why != "" {
				p.PassedOver = append(p.PassedOver, why)
				continue
			}
			p.Runtimes[r.name] = path
			break
		}
	}
}

// tooOld says in words that a runtime is too old; nothing where it isn't, or
// where nobody knows.
func tooOld(program string, version release, path string) string {
	for _, r := range oldestRuntimes {
		if r.name == program && older(version, r.version) {
			return fmt.Sprintf("%s %s at %s is older than %s", program, version, path, r.version)
		}
	}
	return ""
}

// unifiedControllers are those that version 2 has of a hybrid hierarchy of
// cgroups; where there is another one, there is no such file.
const unifiedControllers = "/sys/fs/cgroup/unified/cgroup.controllers"

// unfitForHybrid says in words that a runtime starts no container beside a hybrid
// hierarchy whose version 2 has controllers: crun doesn't.
func unfitForHybrid(program, path, controllers string) string {
	if program != "crun" {
		return ""
	}
	b, err := os.ReadFile(controllers)
	if err != nil || len(strings.Fields(string(b))) == 0 {
		return ""
	}
	return fmt.Sprintf("crun at %s doesn't serve where cgroups are hybrid and version 2 has controllers (%s)", path, strings.TrimSpace(string(b)))
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

// runtimeVersion reads "runc version 1.5.2" or "crun version 1.21". The error
// names the path.
func runtimeVersion(path string) (program string, v release, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	switch {
	case ctx.Err() != nil:
		return "", v, fmt.Errorf("%s --version said nothing for %v", path, versionTimeout)
	case err != nil:
		return "", v, fmt.Errorf("%s --version fails: %w", path, err)
	}
	program, v, ok := parseVersion(string(out))
	if !ok {
		line, _, _ := strings.Cut(string(out), "\n")
		return "", v, fmt.Errorf("%s --version says %q, which is no version", path, line)
	}
	return program, v, nil
}

func parseVersion(out string) (program string, v release, ok bool) {
	line, _, _ := strings.Cut(out, "\n")
	program, text, ok := strings.Cut(line, " version ")
	if !ok {
		return "", v, false
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "-")
	text, _, _ = strings.Cut(text, "+")
	for i, part := range strings.SplitN(text, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return "", v, false
		}
		v[i] = n
	}
	return program, v, true
}

func older(a, b release) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
