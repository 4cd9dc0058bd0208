package harness

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
)

// A Transcript keeps what a process says, and lets others wait for it to say
// something.
type Transcript struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed when there is more
}

// NewTranscript returns an empty one.
func NewTranscript() *Transcript { return &Transcript{more: make(chan struct{})} }

// Write implements io.Writer.
func (s *Transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.more)
	s.more = make(chan struct{})
	return s.b.Write(p)
}

// String is all that was said.
func (s *Transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Await returns all that was said once the words are among it.
func (s *Transcript) Await(ctx context.Context, words string) (string, error) {
	for {
		s.mu.Lock()
		said, more := s.b.String(), s.more
		s.mu.Unlock()
		if strings.Contains(said, words) {
			return said, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return said, fmt.Errorf("it never said %q: %w; it said:\n%s", words, ctx.Err(), said)
		}
	}
}
