//go:build !amd64 && !386

package spec

const onX86 = false
