package launch

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAnswered(t *testing.T) {
	for _, tc := range []struct {
		err, wraps error
		want       string
	}{
		{unix.EBADF, nil, ""},
		{unix.ENOSYS, unix.ENOSYS, "the kernel lacks mount_setattr, which came with Linux 5.12 (function not implemented)"},
		{unix.EPERM, unix.EPERM, "this process may not call mount_setattr (operation not permitted)"},
		{unix.EINVAL, unix.EINVAL, "the call mount_setattr, of Linux 5.12, fails: invalid argument"},
	} {
		got := answered("mount_setattr", "5.12", tc.err, unix.EBADF)
		if tc.want == "" {
			if got != nil {
				t.Errorf("%v: %v, want none", tc.err, got)
			}
			continue
		}
		if got == nil || got.Error() != tc.want || !errors.Is(got, tc.wraps) {
			t.Errorf("%v: %v, want %s", tc.err, got, tc.want)
		}
	}
}
