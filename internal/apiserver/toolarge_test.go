package apiserver

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// failing is a store that takes nothing.
type failing struct {
	storage.Interface
	err error
}

func (f failing) Create(context.Context, string, runtime.Object, runtime.Object, uint64) error {
	return f.err
}

// Only what is too large is called so.
func TestTooLarge(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"for etcd":        {rpctypes.ErrRequestTooLarge, true},
		"for its client":  {status.Error(codes.ResourceExhausted, "trying to send message larger than max (2500000 vs. 2097152)"), true},
		"a full store":    {rpctypes.ErrNoSpace, false},
		"a full store, 2": {rpctypes.ErrGRPCNoSpace, false},
		"something else":  {errors.New("no leader"), false},
		"nothing":         {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := jobStore{failing{err: c.err}}.Create(t.Context(), "", nil, nil, 0)
			if apierrors.IsRequestEntityTooLargeError(err) != c.want || !c.want && !errors.Is(err, c.err) {
				t.Errorf("told %v", err)
			}
		})
	}
}
