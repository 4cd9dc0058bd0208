package images

import (
	"context"
	"slices"
	"sort"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"errand.dev/errand/test/registry"
)

func TestRemove(t *testing.T) {
	srv := startRegistry(t)
	for _, ref := range []string{"library/a:1", "library/a:2", "library/b:1"} {
		push(t, srv, ref, small("same"))
	}
	ctx := context.Background()
	for _, tc := range []struct {
		name   string
		remove []string
		tags   []string // left; nil: the image is gone
	}{
		{"one tag of several", []string{"a:1"}, []string{"docker.io/library/a:2", "docker.io/library/b:1"}},
		{"a repository's last tag", []string{"b:1"}, []string{"docker.io/library/a:1", "docker.io/library/a:2"}},
		{"every tag", []string{"a:1", "a:2", "b:1"}, nil},
		{"missing", []string{"nosuch:1", "sha256:0000", "a:9"}, []string{"docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/b:1"}},
		{"twice", []string{"a:1", "a:1"}, []string{"docker.io/library/a:2", "docker.io/library/b:1"}},
		{"ID", []string{"<id>"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, srv)
			var img Image
			for _, ref := range []string{"a:1", "a:2", "b:1"} {
				var err error
				img, err = s.Pull(ctx, ref, nil)
				must(t, err)
			}
			for _, ref := range tc.remove {
				if ref == "<id>" {
					ref = img.ID
				}
				must(t, s.Remove(ctx, ref))
			}
			got, err := s.Get(ctx, img.ID)
			if tc.tags == nil {
				if !errdefs.IsNotFound(err) {
					t.Errorf("err = %v", err)
				}
				assertEmpty(t, s)
				return
			}
			must(t, err)
			if diff := cmp.Diff(tc.tags, got.RepoTags); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			repos := map[string]bool{}
			for _, tag := range got.RepoTags {
				repos[repository(tag)] = true
			}
			if len(got.RepoDigests) != len(repos) {
				t.Errorf("digests %v for tags %v", got.RepoDigests, got.RepoTags)
			}
		})
	}
}

// Whatever is removed in whatever order: the names that go are a subset that has the one asked for, no ID is left alone, and the rest
// is untouched.
func TestNamesToDrop(t *testing.T) {
	digest := "@sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	all := []string{"docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/a" + digest, "quay.io/b:1", "quay.io/b" + digest}
	id := digest[1:]
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, len(all), rapid.ID[string]).Draw(t, "names")
		ref := rapid.SampledFrom(names).Draw(t, "ref")
		names = append(names, id)
		sort.Strings(names)
		drop := namesToDrop(names, ref)
		if !slices.Contains(drop, ref) {
			t.Fatalf("%s stays", ref)
		}
		left := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(drop, n) })
		if len(left) == 1 && left[0] == id {
			t.Fatal("the image stays without a name")
		}
		if len(left) > 0 && !slices.Contains(left, id) {
			t.Fatal("the ID goes before the image")
		}
		for _, n := range drop {
			if len(left) > 0 && repository(n) != repository(ref) {
				t.Fatalf("removing %s takes %s", ref, n)
			}
		}
	})
}

func TestSharedLayersStay(t *testing.T) {
	srv := startRegistry(t)
	self := registry.Self()
	base, err := registry.Layer(self, registry.File{Name: "base", Body: registry.Random(1, 10_000)})
	must(t, err)
	for _, name := range []string{"a", "b"} {
		top, err := registry.Layer(self, registry.File{Name: name})
		must(t, err)
		img, err := registry.ImageOf("", nil, base, top)
		must(t, err)
		must(t, srv.Push("library/"+name+":1", img))
	}
	s := newStore(t, srv)
	ctx := context.Background()
	for _, ref := range []string{"a:1", "b:1"} {
		_, err := s.Pull(ctx, ref, nil)
		must(t, err)
	}
	must(t, s.Remove(ctx, "a:1"))
	b, err := s.Get(ctx, "b:1")
	must(t, err)
	if !s.rootfs.unpacked(s.context(ctx), b.ChainID) {
		t.Error("b's layers are gone")
	}
	if _, err := s.PrepareRootfs(ctx, "c1", b, RootOptions{}); err != nil {
		t.Error(err)
	}
}

func TestPruneKeepsImages(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	s := newStore(t, srv)
	ctx := context.Background()
	_, err := s.Pull(ctx, "a:1", nil)
	must(t, err)
	freed, err := s.Prune(ctx)
	must(t, err)
	if freed != (Usage{}) {
		t.Errorf("freed %+v", freed)
	}
	if _, err := s.Get(ctx, "a:1"); err != nil {
		t.Error(err)
	}
}
