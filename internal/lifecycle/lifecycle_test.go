package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStopsInReverse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var ended []string
	g := NewGroup(time.Minute)
	for _, name := range []string{"store", "api", "node"} {
		g.Start(ctx, name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return ctx.Err()
		})
	}
	cancel()
	if err := g.Wait(ctx); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	if len(ended) != 0 {
		t.Errorf("%v ended with the caller's context, before they were stopped", ended)
	}
	if err := g.Stop(); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	if want := []string{"node", "api", "store"}; !slices.Equal(ended, want) {
		t.Errorf("ended in the order %v, want %v", ended, want)
	}
}

func TestAFailureIsNamed(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"error":    {func(context.Context) error { return boom }, "api: boom"},
		"returned": {func(context.Context) error { return nil }, "api: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGroup(time.Minute)
			g.Start(t.Context(), "api", tc.run)
			if err := g.Await(t.Context(), make(chan struct{})); err == nil || err.Error() != tc.want {
				t.Errorf("Await: %v, want %q", err, tc.want)
			}
			if err := g.Stop(); err != nil {
				t.Errorf("Stop told the failure again: %v", err)
			}
		})
	}
}

func TestAHangingComponentIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := NewGroup(time.Second)
		g.Start(t.Context(), "etcd", func(context.Context) error { <-release; return nil })
		err := g.Stop()
		if err == nil || !strings.Contains(err.Error(), "etcd did not end within 1s") {
			t.Errorf("Stop: %v", err)
		}
		close(release)
	})
}
