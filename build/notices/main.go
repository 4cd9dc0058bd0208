// Command notices prints the licences of everything that is linked into
// errand's binaries: Go's own, and which modules, in which versions, under which
// texts. Texts that are the same to the letter are printed once. With -runc it
// does so for the runc that is built in that folder, too, with the C libraries
// that it contains.
//
// It fails for a module that has no licence file: such a module can't be
// shipped.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *module
}

// licenceFile matches the names under which licences and notices stand.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|copyright|patents)([.\-_].*)?$`)

// runcTags are those that scripts/runc.sh builds with.
const runcTags = "seccomp,urfave_cli_no_docs,netgo,osusergo"

func main() {
	runc := flag.String("runc", "", "`folder` of the module that runc was built in, where it is shipped")
	flag.Parse()
	if err := run(os.Stdout, *runc, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// texts are licences with the modules that are under each, in the order in
// which they came.
type texts struct {
	order []string
	users map[string][]string
}

func (t *texts) add(user, dir string) error {
	found, err := licences(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", user, err)
	}
	for _, text := range found {
		if t.users[text] == nil {
			t.order = append(t.order, text)
		}
		if !slices.Contains(t.users[text], user) {
			t.users[text] = append(t.users[text], user)
		}
	}
	return nil
}

func run(w io.Writer, runc string, packages []string) error {
	t := texts{users: map[string][]string{}}
	root, err := command("", "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	version, err := command("", "go", "env", "GOVERSION")
	if err != nil {
		return err
	}
	if err := t.add("Go's standard library and runtime "+version, root); err != nil {
		return err
	}
	modules, err := linked("", packages)
	if err != nil {
		return err
	}
	if runc != "" {
		more, err := linked(runc, []string{"-tags", runcTags, "github.com/opencontainers/runc"})
		if err != nil {
			return err
		}
		modules = append(modules, more...)
	}
	for _, m := range modules {
		if err := t.add(m.Path+" "+m.Version, m.Dir); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "Third-party notices\n\nerrand's binaries contain the parts below, under the licences that follow.")
	if runc != "" {
		fmt.Fprint(out, "\n"+cLibraries(debianVersion))
	}
	for _, text := range t.order {
		fmt.Fprintf(out, "\n%s\n\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(t.users[text], "\n"), text)
	}
	if runc != "" {
		if err := lgpl(out); err != nil {
			return err
		}
	}
	return out.Flush()
}

// lgplFile is where Debian has the text of the licence of both C libraries.
const lgplFile = "/usr/share/common-licenses/LGPL-2.1"

func lgpl(w io.Writer) error {
	b, err := os.ReadFile(lgplFile)
	if errors.Is(err, os.ErrNotExist) {
		b, err = []byte("https://www.gnu.org/licenses/old-licenses/lgpl-2.1.txt"), nil // not Debian
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s\n\nlibseccomp, the GNU C Library\n\n%s\n", strings.Repeat("=", 80), strings.TrimSpace(string(b)))
	return err
}

// cLibraries tells of the C libraries that runc is linked with statically.
// version gives a Debian package's version and its source package, or nothing.
func cLibraries(version func(pkg string) (version, source string)) string {
	var b strings.Builder
	b.WriteString("libexec/errand/runc is linked statically with C libraries of the machine that built\nit, unmodified:\n\n")
	for _, l := range []struct{ name, pkg, licence string }{
		{"libseccomp", "libseccomp-dev", "LGPL-2.1"},
		{"the GNU C Library", "libc6-dev", "LGPL-2.1 or later"},
	} {
		v, source := version(l.pkg)
		if v == "" {
			fmt.Fprintf(&b, "  %s, %s. It isn't Debian's: see that machine's package manager for the version\n  and the source.\n", l.name, l.licence)
			continue
		}
		fmt.Fprintf(&b, "  %s, %s, from Debian's package %s %s.\n  Source: apt-get source %s, or https://snapshot.debian.org/package/%s\n", l.name, l.licence, l.pkg, v, source, strings.Replace(source, "=", "/", 1)+"/")
	}
	b.WriteString(`
Parts of GCC's libgcc may be in it too, under the GPL-3.0 with the GCC Runtime
Library Exception. To link it with other versions of these libraries, install
them, remove bin/runc and run make pinned-runc in errand's source: runc's own
source is the Go module named below.
`)
	return b.String()
}

// debianVersion asks dpkg.
func debianVersion(pkg string) (version, source string) {
	out, err := command("", "dpkg-query", "-W", "-f", "${Version} ${source:Package}=${source:Version}", pkg)
	if err != nil {
		return "", ""
	}
	version, source, _ = strings.Cut(out, " ")
	return version, source
}

// command runs a command in dir and returns what it prints.
func command(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if dir != "" {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // as runc is built
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// linked lists the modules that the packages are built from, without the main
// one, as seen in dir. What cgo adds are C libraries, not modules.
func linked(dir string, packages []string) ([]module, error) {
	out, err := command(dir, "go", append([]string{"list", "-deps", "-json=Module"}, packages...)...)
	if err != nil {
		return nil, err
	}
	byPath := map[string]module{}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var p struct{ Module *module }
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read go list's output: %w", err)
		}
		if m := p.Module; m != nil && !m.Main {
			if m.Replace != nil {
				m.Version, m.Dir = m.Replace.Version, m.Replace.Dir
			}
			byPath[m.Path] = *m
		}
	}
	modules := make([]module, 0, len(byPath))
	for _, m := range byPath {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// licences reads the licence files at a module's root.
func licences(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found = append(found, strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")))
	}
	if len(found) == 0 {
		return nil, errors.New("no licence file: it can't be shipped")
	}
	return found, nil
}
