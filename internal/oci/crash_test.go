//go:build node

package oci_test

const clientEnv = "ERRAND_TEST_CLIENT"

func clientProcess(string) int { return 1 }
