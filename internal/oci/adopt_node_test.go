//go:build node

package oci_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
)

// upgraded builds an errand-shim of another version.
func upgraded(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "errand-shim")
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version=v2", "-o", path, "errand.dev/errand/cmd/errand-shim")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return path
}

func TestAnIdleShimOfAnotherBuildIsReplaced(t *testing.T) {
	h := ocitest.NewHost(t)
	first := connect(t, h)
	if _, err := first.Run(t.Context(), oci.RunRequest{ID: "a", Bundle: h.Bundle("a", []string{"sleep", "1000"})}); err != nil {
		t.Fatal(err)
	}
	before := shimPid(t, h)
	cfg := config(t, h)
	if _, err := oci.Connect(t.Context(), cfg); err != nil || shimPid(t, h) != before {
		t.Errorf("the same build was replaced: %v", err)
	}
	cfg.ShimPath = upgraded(t)
	c, err := oci.Connect(t.Context(), cfg)
	if err != nil || shimPid(t, h) != before {
		t.Fatalf("replaced with a container running: %v", err)
	}
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if c, err = oci.Connect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if shimPid(t, h) == before {
		t.Error("an idle shim of another build goes on")
	}
}
