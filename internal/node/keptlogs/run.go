package keptlogs

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Run is one run of a container of a Job's pod.
type Run struct {
	Namespace string    `json:"namespace"`
	JobName   string    `json:"jobName"`
	JobUID    types.UID `json:"jobUID"`
	PodName   string    `json:"podName"`
	PodUID    types.UID `json:"podUID"`
	Container string    `json:"container"`
	// RestartCount is how many runs of the container in the pod came before.
	RestartCount int32 `json:"restartCount"`
	// Ended tells how it ended, nil if nobody knows.
	Ended      *End      `json:"ended,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`

	// KeptAt is when the log was kept, Size what it takes of the disk in bytes.
	KeptAt time.Time `json:"keptAt"`
	Size   int64     `json:"size"`
	// Files are what follows the log's name in those of its files, in the order in
	// which they were written: rotated ones have a stamp there, the last has nothing.
	Files []string `json:"files"`
}

// End is how a run ended.
type End struct {
	ExitCode int32  `json:"exitCode"`
	Reason   string `json:"reason,omitempty"`
}

// name is the run's, in the names of its files.
func (r *Run) name() (string, error) {
	name := nameOf(r.PodUID, r.Container, r.RestartCount)
	if filepath.Base(name) != name || r.PodUID == "" || r.Container == "" {
		return "", fmt.Errorf("run %q has no name for a file", name)
	}
	return name, nil
}

func nameOf(pod types.UID, container string, restartCount int32) string {
	return fmt.Sprintf("%s_%s_%d", pod, container, restartCount)
}

// expired returns the Jobs whose grace is over, and when the next one's will be, zero
// if there is none.
func expired(gone map[types.UID]time.Time, now time.Time) (over []types.UID, next time.Time) {
	for uid, at := range gone {
		switch end := at.Add(Grace); {
		case !now.Before(end):
			over = append(over, uid)
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	slices.Sort(over)
	return over, next
}

// List is a number of runs, as the node's API answers.
type List struct {
	Runs []Run `json:"runs"`
}
