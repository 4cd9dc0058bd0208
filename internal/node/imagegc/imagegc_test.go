package imagegc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestValidate(t *testing.T) {
	if err := DefaultPolicy().Validate(); err != nil {
		t.Error(err)
	}
	for want, p := range map[string]Policy{
		"high-threshold-percent 101": {HighPercent: 101, LowPercent: 80},
		"low-threshold-percent -1":   {HighPercent: 80, LowPercent: -1},
		"must be below":              {HighPercent: 80, LowPercent: 80},
		"minimum-gc-age":             {HighPercent: 80, MinAge: -1},
		"maximum-gc-age":             {HighPercent: 80, MinAge: time.Minute, MaxAge: time.Minute},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestExcess(t *testing.T) {
	p := DefaultPolicy()
	for available, want := range map[int64]int64{1000: 0, 160: 0, 151: 49, 150: 50, 100: 100, 0: 200} {
		if got := p.excess(Disk{Capacity: 1000, Available: available}); got != want {
			t.Errorf("%d of 1000 available: %d to free, want %d", available, got, want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 3 << 30: "3.0 GiB", 5 << 40: "5.0 TiB", 5 << 50: "5120.0 TiB"} {
		if got := formatSize(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

// world is a disk of 1,000 bytes with images of 100, each by the name of its ID. Its
// runtime names what it has pulled, and in lists what containers are made of, by
// digest, as the CRI allows.
type world struct {
	internalapi.RuntimeService
	internalapi.ImageManagerService
	images     []string
	containers []string // their images
	others     []string // images of containers that aren't this node's
	pods       []*v1.Pod
	other      int64 // bytes that others take
	broken     error // what removing an image fails with
	away       error // what asking for an image that isn't there fails with
	events     *record.FakeRecorder
	pruned     [][]string // what PruneUnknownRecords was told is left
	c          *Collector
}

// digest makes of an image's ID a name by digest.
const digest = "@sha256:1234"

// PruneUnknownRecords implements Config.Records.
func (w *world) PruneUnknownRecords(_ context.Context, left []string, _ time.Time) {
	w.pruned = append(w.pruned, left)
}

func (w *world) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	var list []*runtimeapi.Image
	for _, id := range w.images {
		list = append(list, &runtimeapi.Image{Id: id, Size: 100, Pinned: id == "pinned"})
	}
	return list, nil
}

func (w *world) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	id, _, _ := strings.Cut(spec.Image, digest)
	switch {
	case spec.Image == "NO NAME":
		return nil, status.Error(codes.InvalidArgument, "invalid reference")
	case spec.Image == "ambiguous":
		return nil, status.Error(codes.Unknown, "short name mode is enforcing, but image name ambiguous returns ambiguous list")
	case slices.Contains(w.images, id):
		return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: id}}, nil
	}
	return &runtimeapi.ImageStatusResponse{}, w.away
}

func (w *world) PullImage(_ context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	w.images = append(w.images, spec.Image)
	return spec.Image + digest, nil
}

func (w *world) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	if w.broken == nil {
		w.images = slices.DeleteFunc(w.images, func(id string) bool { return id == spec.Image })
	}
	return w.broken
}

func (w *world) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	var list []*runtimeapi.Container
	for _, image := range w.containers {
		list = append(list, &runtimeapi.Container{ImageId: image, State: runtimeapi.ContainerState_CONTAINER_EXITED})
	}
	return list, nil
}

func (w *world) CreateContainer(_ context.Context, _ string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	w.containers = append(w.containers, config.Image.Image)
	return "", nil
}

func (w *world) RemovePodSandbox(context.Context, string) error { return nil }
func (w *world) Close(context.Context) error                    { return nil }

// play runs a script beside a Collector, in a bubble where time is free.
func play(t *testing.T, policy Policy, script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{events: record.NewFakeRecorder(100)}
		var err error
		w.c, err = New(Config{
			Policy: policy, Runtime: w, Images: imagesOf{w}, Recorder: w.events, NodeName: "n", Records: w,
			Containers: func(ctx context.Context) ([]*runtimeapi.Container, error) {
				list, err := w.ListContainers(ctx, nil)
				for _, image := range w.others {
					list = append(list, &runtimeapi.Container{ImageRef: image + digest}) // of an old runtime
				}
				return list, err
			},
			Pods: func() []*v1.Pod { return w.pods },
			Disk: func() (Disk, error) {
				return Disk{Capacity: 1000, Available: 1000 - w.other - 100*int64(len(w.images))}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.c.Run(ctx) }()
		synctest.Wait()
		script(w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// imagesOf is the image side of a world: both services have a Close and such.
type imagesOf struct{ *world }

func (i imagesOf) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return nil, errors.New("not asked for")
}

// hour is an hour and a bit, so that it doesn't end with a period.
const hour = time.Hour + time.Second

// pull, run and podGone are the life of a pod, each an hour after the last.
func (w *world) pull(t *testing.T, image string) {
	t.Helper()
	time.Sleep(hour)
	if _, err := w.c.Images().PullImage(t.Context(), &runtimeapi.ImageSpec{Image: image}, nil, nil); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) run(t *testing.T, image string) {
	t.Helper()
	if _, err := w.c.Runtime().CreateContainer(t.Context(), "", &runtimeapi.ContainerConfig{Image: &runtimeapi.ImageSpec{Image: image}}, nil); err != nil {
		t.Fatal(err)
	}
}

func (w *world) podGone(t *testing.T, image string) {
	t.Helper()
	time.Sleep(hour)
	w.containers = slices.DeleteFunc(w.containers, func(i string) bool { return i == image })
	if err := w.c.Runtime().RemovePodSandbox(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) want(t *testing.T, images ...string) {
	t.Helper()
	if !slices.Equal(w.images, images) {
		t.Errorf("images are %q, want %q", w.images, images)
	}
}

// A pull that fills the disk removes what was used longest ago, down to the low
// threshold; never what a container, a pod to come or the pin needs, nor what has
// just come.
func TestPullMakesRoom(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		for _, image := range []string{"pinned", "used", "awaited", "old", "older", "oldest", "newer"} {
			w.pull(t, image)
		}
		w.run(t, "used")
		for _, image := range []string{"oldest", "older", "old"} {
			w.run(t, image)
			w.podGone(t, image)
		}
		w.pods = []*v1.Pod{
			{Spec: v1.PodSpec{InitContainers: []v1.Container{{Image: "awaited"}}, Containers: []v1.Container{{Image: "NO NAME"}, {Image: "ambiguous"}, {Image: "missing"}}}},
			{Spec: v1.PodSpec{Containers: []v1.Container{{Image: "newer"}}}, Status: v1.PodStatus{Phase: v1.PodSucceeded}},
		}
		w.pull(t, "one") // 800 of 1000
		w.want(t, "pinned", "used", "awaited", "old", "older", "oldest", "newer", "one")
		w.pull(t, "two") // 900: newer and one were never used
		w.want(t, "pinned", "used", "awaited", "old", "older", "oldest", "one", "two")
		w.other = 250
		w.pull(t, "three") // 1150
		w.want(t, "pinned", "used", "awaited", "old", "three")
	})
}

// A runtime that others use, too, keeps what they need.
func TestOthersContainers(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		w.others = []string{"theirs"}
		w.pull(t, "theirs")
		w.pull(t, "old")
		w.other = 700
		w.pull(t, "new")
		w.want(t, "theirs", "new")
	})
}

// Nothing is removed while the runtime can't say what is needed.
func TestRuntimeAway(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		w.pods = []*v1.Pod{{Spec: v1.PodSpec{Containers: []v1.Container{{Image: "missing"}}}}}
		w.pull(t, "old")
		w.other, w.away = 800, status.Error(codes.Unavailable, "restarting")
		w.podGone(t, "")
		w.want(t, "old")
		w.away = nil
		time.Sleep(period)
		synctest.Wait()
		w.want(t)
	})
}

// An image that comes isn't removed before it can be used, however full the disk;
// the next look removes it.
func TestMinAge(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		w.other = 800
		w.pull(t, "a")
		w.want(t, "a")
		if e := <-w.events.Events; !strings.HasPrefix(e, "Warning FreeDiskSpaceFailed Insufficient free disk space on the node's image filesystem (90% of 1000 B used). "+
			"Failed to free sufficient space by deleting unused images (freed 0 bytes). Investigate") {
			t.Errorf("event %q", e)
		}
		time.Sleep(period)
		synctest.Wait()
		w.want(t)
		if len(w.events.Events) > 0 {
			t.Errorf("event %q", <-w.events.Events)
		}
	})
}

// A pod that goes frees its image; what fails twice in a row is told of.
func TestFailure(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		w.pull(t, "a")
		w.run(t, "a")
		time.Sleep(hour)
		w.other, w.broken, w.containers = 800, errors.New("read-only"), nil
		if err := w.c.Runtime().RemovePodSandbox(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// Within a minute, an occasion is none.
		if err := w.c.Runtime().RemovePodSandbox(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(period)
		synctest.Wait()
		w.want(t, "a")
		want := "Warning ImageGCFailed wanted to free 100 bytes, but freed 0 bytes space with errors in image deletion: image a: read-only"
		for len(w.events.Events) > 0 {
			if e := <-w.events.Events; e != want {
				t.Errorf("event %q", e)
			}
		}
		w.broken = nil
		time.Sleep(period)
		synctest.Wait()
		w.want(t)
	})
}

func TestMaxAge(t *testing.T) {
	policy := DefaultPolicy()
	policy.HighPercent, policy.LowPercent, policy.MaxAge = 100, 99, 90*time.Minute
	play(t, policy, func(w *world) {
		w.pull(t, "a")
		w.pull(t, "b")
		w.run(t, "b")
		w.pull(t, "c") // a is 2 h old
		w.want(t, "b", "c")
	})
}

func TestNever(t *testing.T) {
	play(t, Policy{HighPercent: 100, LowPercent: 80}, func(w *world) {
		w.other = 2000
		w.pull(t, "a")
		time.Sleep(period)
		synctest.Wait()
		w.want(t, "a")
	})
}

// When room is needed elsewhere, all images go that may.
func TestDeleteUnusedImages(t *testing.T) {
	play(t, DefaultPolicy(), func(w *world) {
		for _, image := range []string{"pinned", "used", "old"} {
			w.pull(t, image)
		}
		w.run(t, "used")
		time.Sleep(hour)
		if _, err := w.c.Images().PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "new"}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := w.c.DeleteUnusedImages(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.want(t, "pinned", "used", "new")
	})
}

// The records of pulls are told what is left: at the start, every few minutes,
// also where images are never collected, and when somebody removes one.
func TestRecordsFollow(t *testing.T) {
	never := DefaultPolicy()
	never.HighPercent = 100
	for name, policy := range map[string]Policy{"by thresholds": DefaultPolicy(), "never": never} {
		t.Run(name, func(t *testing.T) {
			play(t, policy, func(w *world) {
				w.images = []string{"a", "b"}
				if len(w.pruned) != 1 || len(w.pruned[0]) != 0 {
					t.Errorf("at the start: %q", w.pruned)
				}
				if err := w.c.Prune(t.Context()); err != nil || !slices.Equal(w.pruned[1], w.images) {
					t.Errorf("%q, %v", w.pruned, err)
				}
				time.Sleep(period + time.Second)
				synctest.Wait()
				if len(w.pruned) != 3 || !slices.Equal(w.pruned[2], w.images) {
					t.Errorf("after %s: %q", period, w.pruned)
				}
			})
		})
	}
}
