// Package metadata keeps what the runtime must know of its sandboxes and
// containers after a crash: one file each, written before what it describes is
// made and removed after that is gone.
//
// It owns the records' form and their files, not their meaning. Which process
// runs and how one ended is the shim's to say as long as it lives; a record
// holds an end only so that it outlasts the shim's own.
package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Phase is how far the making of something has got.
type Phase string

const (
	// Creating: something of it may be there, nothing is promised.
	Creating Phase = "creating"
	// Created: it is whole. A sandbox is ready, a container can be started.
	Created Phase = "created"
	// Ended: a sandbox was stopped, a container has exited.
	Ended Phase = "ended"
)

// Sandbox is the record of a pod sandbox.
type Sandbox struct {
	ID        string    `json:"id"`
	Phase     Phase     `json:"phase"`
	CreatedAt time.Time `json:"createdAt"`
	// Boot is the kernel's boot ID under which it was made.
	Boot    string `json:"boot"`
	Handler string `json:"handler,omitempty"`
	// Address in the pod network; the zero value for one of the host's.
	Address netip.Addr                          `json:"address"`
	Config  Proto[*runtimeapi.PodSandboxConfig] `json:"config"`
}

// Container is the record of a container.
type Container struct {
	ID        string    `json:"id"`
	SandboxID string    `json:"sandboxId"`
	Phase     Phase     `json:"phase"`
	CreatedAt time.Time `json:"createdAt"`
	Boot      string    `json:"boot"`
	// ImageID is the digest of the image's configuration, ImageRef the name
	// with a digest that statuses show.
	ImageID    string `json:"imageId"`
	ImageRef   string `json:"imageRef"`
	StopSignal int    `json:"stopSignal"`
	// UID, GID and Groups of the first process.
	UID    int64   `json:"uid"`
	GID    int64   `json:"gid"`
	Groups []int64 `json:"groups,omitempty"`
	// LogPath is absolute, "" for a container without a log.
	LogPath string                             `json:"logPath,omitempty"`
	Config  Proto[*runtimeapi.ContainerConfig] `json:"config"`
	// Exit is set in phase Ended.
	Exit *Exit `json:"exit,omitempty"`
}

// Exit is how a container ended.
type Exit struct {
	Code int32 `json:"code"`
	// StartedAt is zero for a container that never ran.
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message,omitempty"`
}

// Proto is a message inside of a JSON record. It is kept in its binary form,
// which costs a tenth of protobuf's JSON and keeps fields that this build
// doesn't know.
type Proto[T proto.Message] struct{ M T }

// MarshalJSON implements json.Marshaler.
func (p Proto[T]) MarshalJSON() ([]byte, error) {
	b, err := proto.Marshal(p.M)
	if err != nil {
		return nil, err
	}
	return json.Marshal(b)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Proto[T]) UnmarshalJSON(data []byte) error {
	var b []byte
	if err := json.Unmarshal(data, &b); err != nil {
		return err
	}
	var zero T
	m, ok := zero.ProtoReflect().Type().New().Interface().(T)
	if !ok {
		return fmt.Errorf("%T is not a generated message", zero)
	}
	p.M = m
	return proto.Unmarshal(b, p.M)
}

// Dir is a directory of records of one type, by ID. It is safe for concurrent
// use as long as no two callers write one ID.
type Dir[T any] struct {
	root string
}

// OpenDir makes the directory where it is missing.
func OpenDir[T any](root string) (*Dir[T], error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of records: %w", err)
	}
	return &Dir[T]{root: root}, nil
}

const suffix = ".jsonl"

func (d *Dir[T]) path(id string) string { return filepath.Join(d.root, id+suffix) }

// Put writes a record's new state. It survives errand's death at once, and a
// loss of power as soon as the kernel has written it back: nothing waits for
// the disk, since all that a record describes ends with the power as well.
//
// States are appended, a line each, and the last whole line counts. Replacing
// the file by a rename would be as safe and ten times as dear: file systems
// start writing it back at once.
func (d *Dir[T]) Put(id string, record *T) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", id, err)
	}
	f, err := os.OpenFile(d.path(id), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write the record of %s: %w", id, err)
	}
	if err := errors.Join(appendLine(f, line), f.Close()); err != nil {
		return fmt.Errorf("write the record of %s: %w", id, err)
	}
	return nil
}

// appendLine takes back what it wrote of a line that doesn't fit on the disk.
func appendLine(f *os.File, line []byte) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return errors.Join(err, f.Truncate(st.Size()))
	}
	return nil
}

// Delete removes a record. It is idempotent.
func (d *Dir[T]) Delete(id string) error {
	if err := os.Remove(d.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of %s: %w", id, err)
	}
	return nil
}

// Load reads the last state of all records. A file without any whole state, as
// a loss of power may leave one, is removed and its ID returned among damaged:
// what it described is then an orphan.
func (d *Dir[T]) Load() (records map[string]*T, damaged []string, err error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, nil, fmt.Errorf("list the records: %w", err)
	}
	records = map[string]*T{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue
		}
		r, err := d.last(id)
		if err != nil {
			return nil, nil, fmt.Errorf("read the record of %s: %w", id, err)
		}
		if r != nil {
			records[id] = r
			continue
		}
		damaged = append(damaged, id)
		if err := d.Delete(id); err != nil {
			return nil, nil, err
		}
	}
	return records, damaged, nil
}

// last reads a record's last whole state, nil where there is none, and cuts off
// what follows it.
func (d *Dir[T]) last(id string) (*T, error) {
	b, err := os.ReadFile(d.path(id))
	if err != nil {
		return nil, err
	}
	for end := len(b); end > 0; {
		start := bytes.LastIndexByte(b[:end-1], '\n') + 1
		r := new(T)
		if b[end-1] == '\n' && json.Unmarshal(b[start:end], r) == nil {
			if end == len(b) {
				return r, nil
			}
			return r, os.Truncate(d.path(id), int64(end))
		}
		end = start
	}
	return nil, nil
}
