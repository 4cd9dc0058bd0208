//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// gate is a named pipe in a folder of the host's: containers wait at it until
// the test lets them pass, so that a test decides how long they run.
type gate struct {
	t    *testing.T
	dir  string
	pipe *os.File
}

// passGate is what a container's shell runs to wait at its gate: each byte in
// the pipe lets one pass.
const passGate = "dd if=/gate/pipe of=/dev/null bs=1 count=1 2>/dev/null"

// knockGate is what it runs to tell the test that it has come so far.
const knockGate = "echo > /gate/pipe"

func newGate(t *testing.T) *gate {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Open in both directions: it is never at its end.
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipe.Close() })
	return &gate{t, dir, pipe}
}

// path is where the host has what containers have as /gate/name.
func (g *gate) path(name string) string { return filepath.Join(g.dir, name) }

// touch makes an empty file in the folder.
func (g *gate) touch(name string) {
	g.t.Helper()
	if err := os.WriteFile(g.path(name), nil, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// open lets n containers pass, those that wait and those that come later.
func (g *gate) open(n int) {
	g.t.Helper()
	if _, err := g.pipe.Write(make([]byte, n)); err != nil {
		g.t.Fatal(err)
	}
}

// arrived waits until a container has run knockGate.
func (g *gate) arrived() {
	g.t.Helper()
	if err := g.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.pipe.Read(make([]byte, 1)); err != nil {
		g.t.Fatalf("no container has come to the gate: %v", err)
	}
}

// mount ends a Job's manifest with the folder at /gate.
func (g *gate) mount() string {
	return fmt.Sprintf("        volumeMounts: [%s]\n      volumes: [%s]\n", gateMount, g.volume())
}

// gateMount is the container's part of it, volume the pod's.
const gateMount = "{name: gate, mountPath: /gate}"

func (g *gate) volume() string {
	return fmt.Sprintf("{name: gate, hostPath: {path: %q, type: Directory}}", g.dir)
}
