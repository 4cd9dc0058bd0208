package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/atomicfile"
	"errand.dev/errand/internal/datadir"
)

// drainedFile lists the containers that errand drain has ended, by their IDs, so
// that the next errand serve can tell their pods' ends from failures. It stays: an
// ID means one run.
const drainedFile = "drained.json"

// containerLister is what tells which containers run.
type containerLister interface {
	ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
}

// noteDrained writes down which containers are about to be ended on purpose. On a
// full disk they end all the same: their pods' ends then look like failures, which
// stderr is told.
func noteDrained(ctx context.Context, dir *datadir.Dir, runtime containerLister, stderr io.Writer) {
	if err := writeDrained(ctx, dir, runtime); err != nil {
		fmt.Fprintf(stderr, "errand: cannot note which containers are ended: %v\n", err)
	}
}

func writeDrained(ctx context.Context, dir *datadir.Dir, runtime containerLister) error {
	running, err := runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil || len(running) == 0 {
		return err
	}
	ids := make([]string, 0, len(running))
	for _, c := range running {
		ids = append(ids, c.GetId())
	}
	data, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return atomicfile.Write(dir.Path(drainedFile), data, 0o600)
}

// drainedContainers tells which containers the last errand drain has ended. In a data directory that is new
// there are none: those that the store knows ran elsewhere, before it was restored from a backup.
func drainedContainers(dir *datadir.Dir, isNew bool) (func(id string) bool, error) {
	if isNew {
		return func(string) bool { return true }, nil
	}
	data, err := os.ReadFile(dir.Path(drainedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	if err := json.Unmarshal(data, &ids); err != nil {
		return nil, fmt.Errorf("%s: %w: it may be removed", dir.Path(drainedFile), err)
	}
	drained := map[string]bool{}
	for _, id := range ids {
		drained[id] = true
	}
	return func(id string) bool { return drained[id] }, nil
}
