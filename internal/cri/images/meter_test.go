package images

import (
	"context"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// blobSizes is what a pull of img fetches besides its manifest.
func blobSizes(t *testing.T, img v1.Image) int64 {
	t.Helper()
	m, err := img.Manifest()
	must(t, err)
	total := m.Config.Size
	for _, l := range m.Layers {
		total += l.Size
	}
	return total
}

func TestProgressEndsAtTheTotal(t *testing.T) {
	srv := startRegistry(t)
	img := push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 3, 300_000) })
	// A download that goes on after a broken connection isn't counted twice.
	srv.AddFault(registry.Blob(""), 2, registry.Reset(100_000))
	s := newStore(t, srv)
	var told []Progress
	_, err := s.PullWithProgress(context.Background(), "a:1", nil, func(p Progress) { told = append(told, p) })
	must(t, err)
	if len(told) == 0 {
		t.Fatal("nothing was told")
	}
	want := blobSizes(t, img)
	for i, p := range told {
		if p.Total != want || p.Bytes > want || (i > 0 && p.Bytes < told[i-1].Bytes) {
			t.Errorf("report %d of %v: want a rising part of %d", i, told, want)
		}
	}
	if last := told[len(told)-1]; last.Bytes != want {
		t.Errorf("the last report is %+v, want all %d bytes", last, want)
	}
	told = nil
	_, err = s.PullWithProgress(context.Background(), "a:1", nil, func(p Progress) { told = append(told, p) })
	must(t, err)
	if len(told) > 0 {
		t.Errorf("an image that is here tells of %v", told)
	}
}

func TestProgressCountsOnlyWhatIsNotHere(t *testing.T) {
	srv := startRegistry(t)
	base, err := registry.Layer(registry.Self(), registry.File{Name: "base", Body: registry.Random(1, 200_000)})
	must(t, err)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.ImageOf("", nil, base) })
	top, err := registry.Layer(registry.Self(), registry.File{Name: "top", Body: registry.Random(2, 50_000)})
	must(t, err)
	both := push(t, srv, "library/b:1", func() (v1.Image, error) { return registry.ImageOf("", nil, base, top) })
	s := newStore(t, srv)
	_, err = s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	var last Progress
	_, err = s.PullWithProgress(context.Background(), "b:1", nil, func(p Progress) { last = p })
	must(t, err)
	size, err := base.Size()
	must(t, err)
	if want := blobSizes(t, both) - size; last.Total != want || last.Bytes != want {
		t.Errorf("last report %+v, want %d of as many: the base layer was here", last, want)
	}
}

func TestWhoJoinsAPullIsToldOfAllOfIt(t *testing.T) {
	srv := startRegistry(t)
	img := push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 1, 500_000) })
	layers, err := img.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	srv.AddFault(registry.Blob(digest.Hex), 1, registry.Stall(100_000))
	s := newStore(t, srv)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := make(chan Progress, 100)
	results := make(chan error, 2)
	go func() {
		_, err := s.PullWithProgress(ctx, "a:1", nil, func(p Progress) { first <- p })
		results <- err
	}()
	seen := <-first
	joined := make(chan Progress, 100)
	go func() {
		_, err := s.PullWithProgress(ctx, "a:1", nil, func(p Progress) { joined <- p })
		results <- err
	}()
	// The layer has stalled: what the second one is told now is what came before it.
	if p := <-joined; p.Total != blobSizes(t, img) || p.Bytes < seen.Bytes {
		t.Errorf("the second one is told %+v, the first one was told %+v", p, seen)
	}
	cancel()
	<-results
	<-results

	// What came is not fetched again, and counts from the start.
	srv.ClearFaults()
	var told []Progress
	_, err = s.PullWithProgress(context.Background(), "a:1", nil, func(p Progress) { told = append(told, p) })
	must(t, err)
	if len(told) == 0 || told[len(told)-1].Bytes != told[0].Total {
		t.Errorf("a pull that goes on tells of %v", told)
	}
}

func TestASlowWatcherHoldsNobodyUp(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 4, 100_000) })
	s := newStore(t, srv)
	asleep, wake := make(chan struct{}, 100), make(chan struct{})
	slow := make(chan error, 1)
	go func() {
		_, err := s.PullWithProgress(context.Background(), "a:1", nil, func(Progress) {
			asleep <- struct{}{}
			<-wake
		})
		slow <- err
	}()
	<-asleep
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	close(wake)
	must(t, <-slow)
}
