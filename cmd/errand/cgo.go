//go:build cgo && !race

package main

import (
	"fmt"
	"os"
)

// A C library has no place in errand: it is one static program, and its dependencies take other ways with cgo, on
// which it was seen to crash in C code. Without this, `go build` on a machine with a compiler would make one that dies
// with the first image pulled.
func init() {
	fmt.Fprintln(os.Stderr, "errand: this program was built with cgo, with which it does not work; "+
		"build it with `make build`, or with CGO_ENABLED=0")
	os.Exit(1)
}
