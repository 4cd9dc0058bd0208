// Package ocitest is the contract of oci.Runtime as a test suite, to be run against every implementation, and what tests of
// containers need: bundles around a busybox root file system, and a check that nothing is left behind.
//
// It runs real containers: all of it carries the build tag node, and needs root, an OCI runtime ($ERRAND_RUNC, bin/runc in the
// checkout, or runc in $PATH) and a static busybox ($ERRAND_BUSYBOX or /bin/busybox). What is missing fails the test.
package ocitest
