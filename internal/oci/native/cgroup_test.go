package native

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// A cgroup for which there is no memory is a limit that lacks its unit: 100 for 100Mi.
func TestNotMade(t *testing.T) {
	for cause, hint := range map[syscall.Errno]bool{syscall.ENOMEM: true, syscall.ENOSPC: false} {
		err := notMade("/pod/c", fmt.Errorf("mkdir: %w", cause))
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "make the cgroup /pod/c: ") || strings.Contains(err.Error(), "such as Mi") != hint {
			t.Errorf("%v: told %q", cause, err)
		}
	}
}
