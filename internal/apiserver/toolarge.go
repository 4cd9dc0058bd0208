package apiserver

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// jobStore says of a new Job that is larger than the store takes that it is.
// Upstream's handler tries such an object once more, without its managed fields,
// and where that is a Job it has a second UID by then, which its labels and its
// selector don't have: the complaint would be of those.
type jobStore struct{ storage.Interface }

// Create implements storage.Interface.
func (s jobStore) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	err := s.Interface.Create(ctx, key, obj, out, ttl)
	if tooLarge(err) {
		return apierrors.NewRequestEntityTooLargeError("the store takes no Job so large; etcd's limit is 1.5 MiB, unless it is set otherwise")
	}
	return err
}

// tooLarge is so where etcd refuses an object for its size, or its client does. A
// store that is full is out of another resource.
func tooLarge(err error) bool {
	return errors.Is(err, rpctypes.ErrRequestTooLarge) ||
		status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "message larger than max")
}
