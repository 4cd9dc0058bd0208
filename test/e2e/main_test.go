//go:build e2e

// Package e2e runs the built errand with a real kubectl and real containers, as
// a user would. It needs root and the binaries that `make build controller kubectl` makes.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

// patience bounds every wait: far more than anything takes, so that only a
// hang meets it.
var patience = harness.Patience()

var (
	bin            string
	images         *registry.Server
	registriesConf string
	scratch        string // a folder of this run's
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("needs root, for containers")
	}
	if bin, err = filepath.Abs("../../bin"); err != nil {
		return 0, err
	}
	for _, name := range []string{"errand", "errand-shim", "errand-controller", "kubectl"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return 0, fmt.Errorf("%w: run make build controller kubectl", err)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	scratch = dir
	if images, registriesConf, err = registry.StartBusybox("", dir); err != nil {
		return 0, err
	}
	defer images.Close()
	end, err := startRuntime()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	return m.Run(), nil
}

// errand is an errand of one test's own.
type errand struct {
	*harness.Errand
	t      *testing.T
	cfg    harness.Config
	client kubernetes.Interface
}

// start runs an errand that ends with the test, and checks that it leaves
// nothing on the host.
func start(t *testing.T, args ...string) *errand {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startIn(t, filepath.Join(dir, "data"), args...)
}

// startIn does so in a data directory that the test made.
func startIn(t *testing.T, dataDir string, args ...string) *errand {
	t.Helper()
	ofRuntime := runtimeArgs(t)
	leakcheck.Check(t, dataDir)
	e := &errand{t: t, cfg: harness.Config{Bin: bin, DataDir: dataDir, RegistriesConf: registriesConf, Args: args}}
	if ofRuntime != nil {
		e.cfg.RegistriesConf, e.cfg.Args = "", slices.Concat(ofRuntime, args)
	}
	t.Cleanup(e.end)
	e.start()
	return e
}

// with is the same errand for a subtest: what goes wrong fails t.
func (e *errand) with(t *testing.T) *errand {
	sub := *e
	sub.t = t
	return &sub
}

// start starts the process, at first or again after a stop or a crash.
func (e *errand) start() {
	e.t.Helper()
	e.launch()
	e.awaitReady()
}

// launch starts the process without waiting for what comes of it.
func (e *errand) launch() {
	e.t.Helper()
	h, err := harness.Launch(e.cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Errand, e.client = h, nil
}

// awaitReady waits for the process launched. Only then there is an API to ask.
func (e *errand) awaitReady() {
	e.t.Helper()
	if err := e.AwaitReady(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	var err error
	if e.client, err = e.Client(); err != nil {
		e.t.Fatal(err)
	}
}

// end stops the process and drains the host.
func (e *errand) end() {
	if e.Errand == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := e.Stop(ctx); err != nil {
		e.t.Error(err)
	}
	if err := e.Drain(ctx); err != nil {
		e.t.Error(err)
	}
	e.wantNoSandboxes(ctx)
	if e.t.Failed() {
		e.t.Logf("errand said:\n%s", e.Log())
	}
}

// kubectl runs kubectl and returns what it printed; it must succeed.
func (e *errand) kubectl(args ...string) string {
	e.t.Helper()
	return e.kubectlIn("", args...)
}

// kubectlIn does so with stdin as input.
func (e *errand) kubectlIn(stdin string, args ...string) string {
	e.t.Helper()
	r := e.try(stdin, args...)
	if r.Code != 0 {
		e.t.Fatalf("kubectl %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// refused runs a kubectl that must fail, and returns its complaint.
func (e *errand) refused(stdin string, args ...string) string {
	e.t.Helper()
	r := e.try(stdin, args...)
	if r.Code == 0 {
		e.t.Fatalf("kubectl %s succeeded:\n%s%s", strings.Join(args, " "), r.Stdout, r.Stderr)
	}
	return r.Stderr
}

// try runs kubectl and returns what came of it.
func (e *errand) try(stdin string, args ...string) harness.Result {
	e.t.Helper()
	return e.tryFor(patience, stdin, args...)
}

// tryFor does so with a kubectl that may take so long.
func (e *errand) tryFor(limit time.Duration, stdin string, args ...string) harness.Result {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), limit)
	defer cancel()
	r, err := e.Kubectl(ctx, stdin, args...)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

// apply applies a manifest.
func (e *errand) apply(manifest string) {
	e.t.Helper()
	e.kubectlIn(manifest, "apply", "-f", "-")
}

// wait waits by kubectl wait.
func (e *errand) wait(condition string, args ...string) {
	e.t.Helper()
	e.waitFor(patience, condition, args...)
}

// waitFor waits by kubectl wait for what takes its time by its nature. It is
// kubectl that gives up: it says what it waited for.
func (e *errand) waitFor(limit time.Duration, condition string, args ...string) {
	e.t.Helper()
	args = append([]string{"wait", "--for=" + condition, "--timeout=" + limit.String()}, args...)
	if r := e.tryFor(limit+patience, "", args...); r.Code != 0 {
		e.t.Fatalf("kubectl %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}
