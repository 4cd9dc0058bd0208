package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// noteDrained writes down which containers are about to be ended on purpose.
func (r *containerRuntime) noteDrained(ctx context.Context, dir *datadir.Dir) error {
	running, err := r.service.ListContainers(ctx, &runtimeapi.ContainerFilter{
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

// drainedContainers are those that the last errand drain has ended.
func drainedContainers(dir *datadir.Dir) (map[string]bool, error) {
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
	return drained, nil
}
