package cri

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"errand.dev/errand/internal/oci"
)

// full makes a container's record one that can't be written, as a full disk
// does. The function returned makes room again.
func (w *world) full(id string) (room func()) {
	w.t.Helper()
	path := filepath.Join(w.dir, "cri/containers", id+".jsonl")
	if err := errors.Join(os.Rename(path, path+".kept"), os.Mkdir(path, 0o700)); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := errors.Join(os.Remove(path), os.Rename(path+".kept", path)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// begin makes a container, without starting it, in a runtime that runs until
// it is halted; what it had begun is done then.
func begin(w *world, command string) (s *Service, pod, id string, halt func()) {
	w.t.Helper()
	l := w.life(0)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := New(ctx, l.config())
	if err != nil {
		w.t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	if pod, err = s.RunPodSandbox(ctx, podConfig("pod"), ""); err != nil {
		w.t.Fatal(err)
	}
	if id, err = s.CreateContainer(ctx, pod, containerConfig("c", command), nil); err != nil {
		w.t.Fatal(err)
	}
	return s, pod, id, func() {
		cancel()
		<-ran
		s.background.wait()
	}
}

func (w *world) wantExit(s *Service, id string, code int32) {
	w.t.Helper()
	st, err := s.ContainerStatus(context.Background(), id, false)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := st.GetStatus(); got.GetExitCode() != code || got.GetFinishedAt() == 0 {
		w.t.Errorf("status %v, want exit code %d", got, code)
	}
}

// known says whether the parent still has the container.
func (w *world) known(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.containers[id] != nil
}

func TestAnEndThatCannotBeRecordedIsNotAcknowledged(t *testing.T) {
	w := newWorld(t)
	s, _, id, halt := begin(w, "sh")
	if err := s.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	room := w.full(id)
	w.exit(id, 5)
	c, _ := s.container(id)
	<-c.ended
	halt()
	w.wantExit(s, id, 5)
	if !w.known(id) {
		t.Error("the parent was told to forget an end that is nowhere on record")
	}
	room()
	s = restart(w)
	w.wantExit(s, id, 5)
	if w.known(id) {
		t.Error("the end is on record now, and not acknowledged")
	}
}

func TestAFullDiskDoesNotKeepAContainerFromBeingRemoved(t *testing.T) {
	w := newWorld(t)
	s, pod, id, halt := begin(w, "sh")
	if err := s.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.full(id)
	w.exit(id, 5)
	c, _ := s.container(id)
	<-c.ended
	if err := s.RemoveContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "cri/containers", id+".jsonl.kept")); err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePodSandbox(t.Context(), pod); err != nil {
		t.Error(err)
	}
	halt()
	w.checkEmpty()
}

// The parent died under a start: its successor knows of the container, and must
// go on doing so until the end is on record.
func TestALostStartIsRecordedBeforeItIsForgotten(t *testing.T) {
	for _, disk := range []string{"full", "has room"} {
		t.Run(disk, func(t *testing.T) {
			w := newWorld(t)
			s, _, id, halt := begin(w, "parent-dies")
			room := func() {}
			if disk == "full" {
				room = w.full(id)
			}
			if err := s.StartContainer(t.Context(), id); !errors.Is(err, oci.ErrParentLost) {
				t.Errorf("started with %v", err)
			}
			halt()
			if got := w.known(id); got != (disk == "full") {
				t.Errorf("the parent knows of it: %t", got)
			}
			room()
			w.wantExit(restart(w), id, 137)
		})
	}
}
