package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"errand.dev/errand/internal/control"
)

// showAll shows a pull of 3 s and gives what was written.
func showAll(p *progress) string {
	var b strings.Builder
	c := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	p.w, p.clock = &b, c
	p.show(control.Progress{Step: "pulling a"})
	for i := range 30 {
		c.SetTime(time.Unix(0, 0).Add(time.Duration(i+1) * 100 * time.Millisecond))
		p.show(control.Progress{Step: "pulling a", Done: int64(i+1) * 1_000_000, Total: 50_120_000})
	}
	p.show(control.Progress{Step: "unpacking a"})
	p.end()
	return b.String()
}

func TestProgressInALogIsALineASecond(t *testing.T) {
	want := `pulling a
pulling a: 10.0 MB of 50.1 MB
pulling a: 20.0 MB of 50.1 MB
pulling a: 30.0 MB of 50.1 MB
unpacking a
`
	if diff := cmp.Diff(want, showAll(&progress{})); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestProgressOnATerminalIsOneLine(t *testing.T) {
	got := showAll(&progress{terminal: true})
	if strings.Contains(got, "\n") {
		t.Errorf("more than one line: %q", got)
	}
	shown := strings.Split(got, "\r")
	if want := "pulling a: 30.0 MB of 50.1 MB"; shown[len(shown)-4] != want {
		t.Errorf("%q, want %q", shown[len(shown)-4], want)
	}
	// A shorter line covers the longer one before it.
	if want := "unpacking a                  "; shown[len(shown)-3] != want {
		t.Errorf("%q, want %q", shown[len(shown)-3], want)
	}
}

func TestProgressTakesTheFilesSize(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b, 3_000_000)
	p.show(control.Progress{Step: "reading the archive", Done: 1_000_000})
	if want := "reading the archive: 1.0 MB of 3.0 MB\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestProgressFitsTheTerminal(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, terminal: true, columns: 20}
	p.show(control.Progress{Step: "pulling a-long-name", Done: 1_000_000, Total: 3_000_000})
	if len(b.String()) != len("\r")+19 || !strings.HasSuffix(b.String(), "1.0 MB of 3.0 MB") {
		t.Errorf("%q, want 19 columns that keep the numbers", b.String())
	}
}
