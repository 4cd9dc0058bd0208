//go:build node

package ocitest

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci/ocitest/host"
)

// Host makes containers for one test.
type Host = host.Host

// NewHost returns a Host that removes everything at the end of the test, after checking that nothing is left.
func NewHost(t testing.TB) *Host {
	t.Helper()
	return host.New(t)
}

// Runc is the path of the OCI runtime to test with.
func Runc(t testing.TB) string {
	t.Helper()
	return host.Runc(t)
}

// Process is a minimal OCI process.
func Process(args ...string) *specs.Process { return host.Process(args...) }

// HostPID makes a container share the host's PID namespace, so that the end of its first process ends nobody else.
func HostPID(spec *specs.Spec) { host.HostPID(spec) }

// Terminal gives a container's first process a terminal.
func Terminal(spec *specs.Spec) { host.Terminal(spec) }
