package cri

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// heldUp takes nothing after its first write until it is released.
type heldUp struct {
	got      bytes.Buffer
	first    chan struct{}
	released chan struct{}
}

func (h *heldUp) Write(p []byte) (int, error) {
	if h.got.Len() == 0 {
		close(h.first)
		<-h.released
	}
	return h.got.Write(p)
}

func (h *heldUp) Close() error { return nil }

// A client that is slower than the process whose output it takes gets all of it, also where the process has long exited.
func TestSlowClientsGetAllOutput(t *testing.T) {
	var pipes pipeSet
	client := &heldUp{first: make(chan struct{}), released: make(chan struct{})}
	stdout := pipes.output(client)
	if pipes.err != nil {
		t.Fatal(pipes.err)
	}
	rest := strings.Repeat("r", 60<<10)
	if _, err := io.WriteString(stdout, "first "); err != nil {
		t.Fatal(err)
	}
	<-client.first
	if _, err := io.WriteString(stdout, rest); err != nil {
		t.Fatal(err)
	}
	pipes.started() // and the process has exited
	for _, f := range pipes.outputs {
		if err := f.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	close(client.released)
	pipes.copies.Wait()
	pipes.close()
	if got := client.got.String(); got != "first "+rest {
		t.Errorf("the client got %d bytes, want %d", len(got), len("first ")+len(rest))
	}
}

// What a busy machine hadn't read of a command's output by the deadline is read after it.
func TestLateReaderGetsAllOutput(t *testing.T) {
	var out outputPipe
	if err := out.open(); err != nil {
		t.Fatal(err)
	}
	const said = "all that it said"
	if _, err := io.WriteString(out.w, said); err != nil {
		t.Fatal(err)
	}
	if err := out.r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	out.collect()
	out.done.Wait()
	if string(out.data) != said || out.err != nil {
		t.Errorf("got %q, %v", out.data, out.err)
	}
	if err := out.end(); err != nil {
		t.Error(err)
	}
	out.w.Close()
}

// A child that goes on writing to what its parent has left doesn't hold up the end.
func TestEndlessChildren(t *testing.T) {
	var pipes pipeSet
	stdout := pipes.output(nopCloser{io.Discard})
	if pipes.err != nil {
		t.Fatal(pipes.err)
	}
	ended := make(chan struct{})
	go func(child *os.File) {
		defer close(ended)
		for {
			if _, err := child.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}(stdout)
	pipes.drain(time.Millisecond)
	pipes.close()
	<-ended
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
