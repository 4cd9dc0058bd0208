package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/control"
)

// progressEvery is the least time between two lines about the same step, for
// whoever reads them in a log.
const progressEvery = time.Second

// progress shows how far a call has come: on a terminal in one line that it
// rewrites, elsewhere in a line for each step and at most one a second more.
type progress struct {
	w        io.Writer
	terminal bool
	columns  int // of the terminal; 0 means that it doesn't say
	clock    clock.PassiveClock
	// size is the total where the call doesn't know it; 0 means that nobody does.
	size int64

	step  string
	shown time.Time
	width int // of the line that stands on the terminal
}

func newProgress(w io.Writer, size int64) *progress {
	p := &progress{w: w, clock: clock.RealClock{}, size: size}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal = true
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			p.columns = columns
		}
	}
	return p
}

// show takes what a call of control.Images tells.
func (p *progress) show(now control.Progress) {
	if now.Done > 0 && now.Total == 0 {
		now.Total = p.size
	}
	line := now.Step
	switch {
	case now.Total > 0:
		line += fmt.Sprintf(": %s of %s", size(now.Done), size(now.Total))
	case now.Done > 0:
		line += ": " + size(now.Done)
	}
	if p.terminal {
		if p.columns > 3 && len(line) >= p.columns {
			line = ".." + line[len(line)-p.columns+3:] // one that wraps can't be rewritten
		}
		fmt.Fprintf(p.w, "\r%-*s", p.width, line)
		p.width = len(line)
		return
	}
	t := p.clock.Now()
	if now.Step == p.step && t.Sub(p.shown) < progressEvery {
		return
	}
	p.step, p.shown = now.Step, t
	fmt.Fprintln(p.w, line)
}

// end takes the line off the terminal: what follows tells more.
func (p *progress) end() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
	}
}

// size is a number of bytes in words that keep their length while it grows.
func size(bytes int64) string {
	return units.CustomSize("%.1f %s", float64(bytes), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"})
}
