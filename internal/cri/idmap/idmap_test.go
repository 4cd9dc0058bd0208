package idmap

import (
	"math"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ids(host, container, length uint32) []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{HostId: host, ContainerId: container, Length: length}}
}

func TestFromCRI(t *testing.T) {
	good := ids(65536, 0, 65536)
	for name, c := range map[string]struct {
		options *runtimeapi.UserNamespace
		want    *Mapping
		err     string
	}{
		"absent":                  {},
		"the host's":              {options: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}},
		"the host's, mapped":      {options: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE, Uids: good, Gids: good}, err: "can't have mappings"},
		"the pod's":               {options: &runtimeapi.UserNamespace{Uids: good, Gids: ids(131072, 0, 10)}, want: &Mapping{Users: Range{65536, 65536}, Groups: Range{131072, 10}}},
		"a container's":           {options: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_CONTAINER, Uids: good, Gids: good}, err: "mode CONTAINER"},
		"another's":               {options: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_TARGET, Uids: good, Gids: good}, err: "mode TARGET"},
		"without users":           {options: &runtimeapi.UserNamespace{Gids: good}, err: "user IDs' mapping: must be one range, not 0"},
		"without groups":          {options: &runtimeapi.UserNamespace{Uids: good}, err: "group IDs' mapping: must be one range, not 0"},
		"two ranges":              {options: &runtimeapi.UserNamespace{Uids: append(ids(1, 1, 1), good...), Gids: good}, err: "one range, not 2"},
		"without root":            {options: &runtimeapi.UserNamespace{Uids: ids(65536, 1, 10), Gids: good}, err: "begins at the container's ID 1"},
		"empty":                   {options: &runtimeapi.UserNamespace{Uids: ids(65536, 0, 0), Gids: good}, err: "is empty"},
		"root of the host":        {options: &runtimeapi.UserNamespace{Uids: ids(0, 0, 10), Gids: good}, err: "host's root"},
		"the last ID":             {options: &runtimeapi.UserNamespace{Uids: ids(math.MaxUint32-10, 0, 10), Gids: good}, want: &Mapping{Users: Range{math.MaxUint32 - 10, 10}, Groups: Range{65536, 65536}}},
		"the ID that is none":     {options: &runtimeapi.UserNamespace{Uids: ids(math.MaxUint32-10, 0, 11), Gids: good}, err: "more than there are"},
		"more than 32 bits count": {options: &runtimeapi.UserNamespace{Uids: ids(math.MaxUint32, 0, math.MaxUint32), Gids: good}, err: "more than there are"},
	} {
		got, err := FromCRI(c.options)
		switch {
		case (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err):
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		case (got == nil) != (c.want == nil) || got != nil && *got != *c.want:
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestToHost(t *testing.T) {
	r := Range{Host: 65536, Length: 10}
	for id, want := range map[uint32]uint32{0: 65536, 9: 65545} {
		if got, ok := r.ToHost(id); !ok || got != want {
			t.Errorf("%d is %d, %v on the host; want %d", id, got, ok, want)
		}
	}
	if got, ok := r.ToHost(10); ok {
		t.Errorf("an ID without one is %d on the host", got)
	}
}

func TestCommonParent(t *testing.T) {
	for _, c := range []struct {
		want  string
		paths []string
	}{
		{"/images/1", []string{"/images/1/fs"}},
		{"/images", []string{"/images/1/fs", "/images/12/fs", "/images/2/fs"}},
		{"/a", []string{"/a/b/c", "/a/bc/c"}},
		{"", []string{"/a/b", "/c/d"}},
		{"", []string{"/a"}},
		{"", []string{""}},
	} {
		if got := commonParent(c.paths); got != c.want {
			t.Errorf("%q have the parent %q, want %q", c.paths, got, c.want)
		}
	}
}
