package clienttest

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// eventually waits for what the server comes to by itself: its admission plugins and caches follow the store.
func (s *Session) eventually(what string, ok func() bool) {
	s.Helper()
	err := wait.PollUntilContextCancel(s.Ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}
