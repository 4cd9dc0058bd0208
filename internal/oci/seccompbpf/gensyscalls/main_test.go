package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A new golang.org/x/sys brings new calls; they are of no use as long as the
// table doesn't have them.
func TestTableIsCurrent(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := generate(&want, strings.TrimSpace(string(dir))); err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join("..", target))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("syscalls.csv isn't what golang.org/x/sys has: run go generate ./internal/oci/seccompbpf")
	}
}
