// Package idmap has what a user namespace and the mounts for it have in common:
// which of the host's IDs stand for which of a pod's (KEP-127).
//
// It owns the reading of mappings as the CRI has them, and mounts whose files
// appear with other owners (id-mapped mounts). It makes no user namespace;
// package namespace does.
package idmap

import (
	"errors"
	"fmt"
	"math"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Range are the host's IDs from Host on that stand for a pod's from 0 on.
type Range struct {
	Host, Length uint32
}

// Mapping is a user namespace's: one range of users and one of groups.
type Mapping struct {
	Users, Groups Range
}

// ToHost returns the host's ID for the pod's; ok is false for one without.
func (r Range) ToHost(id uint32) (host uint32, ok bool) {
	return r.Host + id, id < r.Length
}

// String is the range as containerd's packages write mappings.
func (r Range) String() string { return fmt.Sprintf("0:%d:%d", r.Host, r.Length) }

// Owner returns the host's IDs of the pod's root.
func (m Mapping) Owner() (uid, gid int) { return int(m.Users.Host), int(m.Groups.Host) }

// FromCRI reads what the CRI asks for. nil means the host's user namespace.
func FromCRI(o *runtimeapi.UserNamespace) (*Mapping, error) {
	switch {
	case o == nil:
		return nil, nil
	case o.GetMode() == runtimeapi.NamespaceMode_NODE && len(o.GetUids())+len(o.GetGids()) > 0:
		return nil, errors.New("the host's user namespace can't have mappings")
	case o.GetMode() == runtimeapi.NamespaceMode_NODE:
		return nil, nil
	case o.GetMode() != runtimeapi.NamespaceMode_POD:
		return nil, fmt.Errorf("a user namespace can be the pod's or the host's, not of mode %s", o.GetMode())
	}
	users, err := rangeOf(o.GetUids())
	if err != nil {
		return nil, fmt.Errorf("the user IDs' mapping: %w", err)
	}
	groups, err := rangeOf(o.GetGids())
	if err != nil {
		return nil, fmt.Errorf("the group IDs' mapping: %w", err)
	}
	return &Mapping{Users: users, Groups: groups}, nil
}

func rangeOf(list []*runtimeapi.IDMapping) (Range, error) {
	if len(list) != 1 {
		return Range{}, fmt.Errorf("must be one range, not %d", len(list))
	}
	m := list[0]
	switch {
	case m.GetContainerId() != 0:
		return Range{}, fmt.Errorf("begins at the container's ID %d, not at 0", m.GetContainerId())
	case m.GetLength() == 0:
		return Range{}, errors.New("is empty")
	case m.GetHostId() == 0:
		return Range{}, errors.New("gives the host's root to the pod")
	case uint64(m.GetHostId())+uint64(m.GetLength())-1 >= math.MaxUint32: // which stands for no ID
		return Range{}, fmt.Errorf("%d IDs from %d on are more than there are", m.GetLength(), m.GetHostId())
	}
	return Range{Host: m.GetHostId(), Length: m.GetLength()}, nil
}
