package oci

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// What has ended in a cgroup is in the way of its removal for a moment.
func TestABusyCgroupIsTriedAgain(t *testing.T) {
	tries := 0
	err := rmdir(t.Context(), t.TempDir(), func(string) error {
		if tries++; tries < 3 {
			return unix.EBUSY
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
	if err := rmdir(t.Context(), t.TempDir(), func(string) error { return unix.EPERM }); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}
