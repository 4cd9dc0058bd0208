package images

import (
	"context"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/test/registry"
)

func TestServiceContract(t *testing.T) {
	srv := startRegistry(t)
	testImageService(t, srv, func(t *testing.T) internalapi.ImageManagerService { return newStore(t, srv).Service() })
}

// testImageService is what a CRI image service must do, whoever implements it. open returns an empty one that pulls docker.io's images
// from srv.
func testImageService(t *testing.T, srv *registry.Server, open func(*testing.T) internalapi.ImageManagerService) {
	for name, user := range map[string]string{"nobody": "", "uid": "1002", "name": "www-data", "uid-group": "1003:users", "name-group": "app:app"} {
		push(t, srv, "library/user-"+name+":1", func() (v1.Image, error) {
			l, err := registry.Layer(registry.Self(), registry.File{Name: name})
			must(t, err)
			return registry.ImageOf("", func(c *v1.Config) { c.User = user }, l)
		})
	}
	push(t, srv, "library/a:1", small("a"))
	push(t, srv, "library/a:2", small("a"))
	ctx := context.Background()
	spec := func(ref string) *runtimeapi.ImageSpec { return &runtimeapi.ImageSpec{Image: ref} }
	pull := func(t *testing.T, s internalapi.ImageManagerService, ref string) string {
		t.Helper()
		id, err := s.PullImage(ctx, spec(ref), nil, nil)
		must(t, err)
		return id
	}

	t.Run("an empty store", func(t *testing.T) {
		s := open(t)
		list, err := s.ListImages(ctx, nil)
		if err != nil || len(list) != 0 {
			t.Errorf("list: %v, %v", list, err)
		}
		st, err := s.ImageStatus(ctx, spec("a:1"), false)
		if err != nil || st == nil || st.Image != nil {
			t.Errorf("status of a missing image: %v, %v", st, err)
		}
		if err := s.RemoveImage(ctx, spec("a:1")); err != nil {
			t.Errorf("removing a missing image: %v", err)
		}
	})

	t.Run("pull, status, list, remove", func(t *testing.T) {
		s := open(t)
		id := pull(t, s, "a:1")
		if other := pull(t, s, "docker.io/library/a:2"); other != id {
			t.Errorf("two tags of one image give %s and %s", id, other)
		}
		for _, ref := range []string{"a:1", "a:2", "docker.io/library/a:1", id} {
			st, err := s.ImageStatus(ctx, spec(ref), false)
			must(t, err)
			if st.Image.GetId() != id || len(st.Image.GetRepoTags()) != 2 || len(st.Image.GetRepoDigests()) != 1 || st.Image.GetSize() == 0 || st.Info != nil {
				t.Errorf("status of %s: %v", ref, st)
			}
			list, err := s.ListImages(ctx, &runtimeapi.ImageFilter{Image: spec(ref)})
			if err != nil || len(list) != 1 || list[0].GetId() != id {
				t.Errorf("list %s: %v, %v", ref, list, err)
			}
		}
		st, err := s.ImageStatus(ctx, spec(id), true)
		must(t, err)
		if st.Info["info"] == "" {
			t.Error("no verbose info")
		}
		if list, err := s.ListImages(ctx, &runtimeapi.ImageFilter{Image: spec("b:1")}); err != nil || len(list) != 0 {
			t.Errorf("list of a missing image: %v, %v", list, err)
		}
		must(t, s.RemoveImage(ctx, spec(id)))
		must(t, s.RemoveImage(ctx, spec(id)))
		if list, err := s.ListImages(ctx, &runtimeapi.ImageFilter{}); err != nil || len(list) != 0 {
			t.Errorf("list after removal: %v, %v", list, err)
		}
	})

	t.Run("user", func(t *testing.T) {
		s := open(t)
		for name, want := range map[string]struct {
			uid      *runtimeapi.Int64Value
			username string
		}{
			"nobody":     {nil, ""},
			"uid":        {&runtimeapi.Int64Value{Value: 1002}, ""},
			"name":       {nil, "www-data"},
			"uid-group":  {&runtimeapi.Int64Value{Value: 1003}, ""},
			"name-group": {nil, "app"},
		} {
			pull(t, s, "user-"+name+":1")
			st, err := s.ImageStatus(ctx, spec("user-"+name+":1"), false)
			must(t, err)
			if got := st.Image; got.GetUid().GetValue() != want.uid.GetValue() || (got.GetUid() == nil) != (want.uid == nil) || got.GetUsername() != want.username {
				t.Errorf("%s: uid %v, username %q", name, got.GetUid(), got.GetUsername())
			}
		}
	})

	t.Run("file system", func(t *testing.T) {
		s := open(t)
		pull(t, s, "a:1")
		info, err := s.ImageFsInfo(ctx)
		must(t, err)
		for _, list := range [][]*runtimeapi.FilesystemUsage{info.GetImageFilesystems(), info.GetContainerFilesystems()} {
			if len(list) != 1 || list[0].GetTimestamp() == 0 || list[0].GetFsId().GetMountpoint() == "" || list[0].GetUsedBytes().GetValue() == 0 || list[0].GetInodesUsed().GetValue() == 0 {
				t.Errorf("usage: %v", list)
			}
		}
	})

	t.Run("closing is harmless", func(t *testing.T) {
		s := open(t)
		must(t, s.Close(ctx))
		pull(t, s, "a:1")
	})
}

func TestPinnedImages(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	push(t, srv, "library/b:1", small("b"))
	s := openStore(t, testConfig(t, srv, func(c *Config) { c.PinnedImages = []string{"a:1"} }))
	for ref, pinned := range map[string]bool{"a:1": true, "b:1": false} {
		img, err := s.Pull(context.Background(), ref, nil)
		must(t, err)
		if img.Pinned != pinned {
			t.Errorf("%s: pinned = %v", ref, img.Pinned)
		}
	}
}
