package server

import (
	"testing"

	"errand.dev/errand/internal/datadir"
)

func TestDrainSaysWhatToDoAboutTheHolder(t *testing.T) {
	for want, holder := range map[string]datadir.Holder{
		"data directory /d is held by process 7 (errand serve), and errand drain ends what a stopped errand has left: stop that one first, by kill 7 or, if it is a service, systemctl stop errand": {PID: 7, Command: "errand serve"},
		"data directory /d is held by another process, and errand drain ends what a stopped errand has left: stop that one first":                                                                   {},
		"data directory /d is held by process 7 (errand image load), and errand drain ends what a stopped errand has left: wait for its end":                                                        {PID: 7, Command: "errand image load"},
	} {
		if got := errHeld(&datadir.HeldError{Path: "/d", Holder: holder}).Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
