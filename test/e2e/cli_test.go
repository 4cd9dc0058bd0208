//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"errand.dev/errand/test/harness"
)

// command is a call of the built errand.
type command struct {
	args  []string
	stdin []byte
	env   []string
}

// runErrand runs errand with a data directory that its arguments name.
func runErrand(t *testing.T, args ...string) harness.Result {
	t.Helper()
	return command{args: args}.run(t)
}

func (c command) run(t *testing.T) harness.Result {
	t.Helper()
	return c.runAs(t, filepath.Join(bin, "errand"), nil)
}

// runAs runs a copy of errand, with what edit changes.
func (c command) runAs(t *testing.T, path string, edit func(*exec.Cmd)) harness.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = bytes.NewReader(c.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if edit != nil {
		edit(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("errand %s: %v", strings.Join(c.args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("errand %s hangs; it said:\n%s%s", strings.Join(c.args, " "), &stdout, &stderr)
	}
	return harness.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// wantResult checks an exit code, and that what was printed has the words.
func wantResult(t *testing.T, r harness.Result, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d; it printed:\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stdout+r.Stderr, w) {
			t.Errorf("it doesn't say %q:\n%s%s", w, r.Stdout, r.Stderr)
		}
	}
}

// Whoever deletes the data directory first and thinks of errand drain then has
// lost nothing but the objects: all else is found by its names.
func TestDrainWithoutTheDataDirectory(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *errand){
		"deleted": func(t *testing.T, e *errand) { removeData(t, e.cfg.DataDir) },
		"deleted, the shim killed": func(t *testing.T, e *errand) {
			removeData(t, e.cfg.DataDir)
			killShim(t, e)
		},
		"deleted and made anew": func(t *testing.T, e *errand) {
			removeData(t, e.cfg.DataDir)
			wantResult(t, runErrand(t, "image", "pull", "busybox", "--data-dir", e.cfg.DataDir, "--registries-conf", registriesConf), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			e.apply(job("sleeper", "sleep 3600"))
			e.wait("jsonpath={.status.ready}=1", "job/sleeper")

			// As long as errand serve runs, nothing is taken from under it.
			if name == "deleted" {
				aside := e.cfg.DataDir + ".aside"
				if err := os.Rename(e.cfg.DataDir, aside); err != nil {
					t.Fatal(err)
				}
				wantResult(t, runErrand(t, "drain", "--data-dir", e.cfg.DataDir), 1, "still runs")
				if err := os.Rename(aside, e.cfg.DataDir); err != nil {
					t.Fatal(err)
				}
			}

			if err := e.Kill(); err != nil {
				t.Fatal(err)
			}
			end(t, e)
			r := runErrand(t, "drain", "--data-dir", e.cfg.DataDir)
			wantResult(t, r, 0)
			names, err := e.Names()
			if err != nil {
				t.Fatal(err)
			}
			if name == "deleted" {
				wantResult(t, r, 0, "its errand left: errand-shim; ", "processes in the cgroup "+names.CgroupParent, names.Bridge, names.NFTable, names.RuntimeDir)
			}
			if name != "deleted and made anew" {
				wantResult(t, runErrand(t, "drain", "--data-dir", e.cfg.DataDir), 1, "there is no errand at "+e.cfg.DataDir)
			}
			e.Errand = nil // nothing to end any more; that nothing is left is checked by start
		})
	}
}

// removeData deletes a data directory as a user would, but for what is mounted
// there.
func removeData(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput()
	if err != nil {
		t.Logf("rm -rf: %v\n%s", err, out)
	}
}

func killShim(t *testing.T, e *errand) {
	t.Helper()
	pid, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", "-9", strconv.Itoa(pid)).Run(); err != nil {
		t.Fatal(err)
	}
}
