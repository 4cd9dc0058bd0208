package ginkgoreport

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Follow tells every ten seconds how far the tests are that print to the file log, until it is stopped.
func Follow(log string, out io.Writer) (stop func()) {
	began := time.Now()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				passed, failed := soFar(log)
				fmt.Fprintf(out, "  upstream's tests: %d passed, %d failed, %d s\n", passed, failed, int(now.Sub(began).Seconds()))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// soFar reads what ginkgo has printed: a line such as "• [1.2 seconds]" or "• [FAILED] [1.2 seconds]" for each test that has ended.
func soFar(log string) (passed, failed int) {
	b, err := os.ReadFile(log)
	if err != nil {
		return 0, 0 // it only tells of progress
	}
	text := "\n" + string(b)
	failed = strings.Count(text, "\n• [FAILED]")
	return strings.Count(text, "\n• ") - failed, failed
}
