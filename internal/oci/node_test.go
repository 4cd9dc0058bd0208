//go:build node

package oci_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
	"errand.dev/errand/internal/slowness"
)

// shimPath is the errand-shim built for these tests.
var shimPath string

func TestMain(m *testing.M) {
	if dir := os.Getenv(clientEnv); dir != "" {
		os.Exit(clientProcess(dir))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("/tmp", "eshim")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shimPath = filepath.Join(dir, "errand-shim")
		build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", shimPath, "errand.dev/errand/cmd/errand-shim")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
		return m.Run()
	}())
}

func config(t testing.TB, h *ocitest.Host) oci.Config {
	return oci.Config{
		RuntimeDir: filepath.Join(h.Dir, "run"), ShimPath: shimPath, CgroupParent: h.CgroupParent,
		Handlers:       map[string]oci.Handler{"runc": {Path: ocitest.Runc(t)}},
		DefaultHandler: "runc",
	}
}

// configBy has ordinary containers started by errand's own launcher, or by the OCI runtime.
func configBy(t testing.TB, h *ocitest.Host, native bool) oci.Config {
	cfg := config(t, h)
	cfg.Native = native
	return cfg
}

// eachBackEnd runs a test with either.
func eachBackEnd(t *testing.T, test func(t *testing.T, native bool)) {
	t.Run("runc", func(t *testing.T) { test(t, false) })
	t.Run("native", func(t *testing.T) { test(t, true) })
}

func connectBy(t testing.TB, h *ocitest.Host, native bool) *oci.Client {
	t.Helper()
	return connectTo(t, h, configBy(t, h, native))
}

func connect(t testing.TB, h *ocitest.Host) *oci.Client {
	t.Helper()
	return connectTo(t, h, config(t, h))
}

func connectTo(t testing.TB, h *ocitest.Host, cfg oci.Config) *oci.Client {
	t.Helper()
	c, err := oci.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), slowness.Times(20*time.Second))
		defer cancel()
		if err := c.Drain(ctx, true); err != nil {
			t.Errorf("drain: %v", err)
		}
		if t.Failed() {
			data, _ := os.ReadFile(filepath.Join(h.Dir, "run/shim.log"))
			t.Logf("the shim's log: %s", data)
		}
	})
	return c
}

func TestRuntimeContract(t *testing.T) {
	ocitest.Contract(t, func(t *testing.T, h *ocitest.Host) oci.Runtime { return connect(t, h) })
}

// TestLauncherContract runs the same suite on errand's own launcher.
func TestLauncherContract(t *testing.T) {
	ocitest.Contract(t, func(t *testing.T, h *ocitest.Host) oci.Runtime { return connectBy(t, h, true) })
}

// owner is the user that a file belongs to.
func owner(st os.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Uid }
