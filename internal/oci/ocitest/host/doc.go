// Package host makes OCI bundles for tests, and finds what their containers have left on the machine. It knows nothing of who
// runs them.
package host
