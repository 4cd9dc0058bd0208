// Package slowness has tests wait longer where everything takes a multiple of what
// it does elsewhere, such as on an emulated machine. It is for tests, and owns no
// bound: each says how long it would wait on an ordinary machine.
package slowness

import (
	"os"
	"strconv"
	"time"
)

// Times is d, or what it is on a machine that is slower by the factor
// $ERRAND_SLOWNESS.
func Times(d time.Duration) time.Duration {
	if factor, err := strconv.Atoi(os.Getenv("ERRAND_SLOWNESS")); err == nil && factor > 0 {
		return d * time.Duration(factor)
	}
	return d
}
