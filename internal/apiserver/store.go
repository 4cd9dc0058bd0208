package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"

	"errand.dev/errand/internal/apiserver/etcd"
)

const storeCheckTimeout = 2 * time.Second

// store is the embedded member or a cluster of the user's.
type store struct {
	client *clientv3.Client
	member *etcd.Member // nil if the cluster is the user's
}

func openStore(ctx context.Context, c *completedConfig) (*store, error) {
	if len(c.Etcd.Endpoints) > 0 {
		client, err := etcd.Dial(ctx, c.Etcd)
		if err != nil {
			return nil, err
		}
		return &store{client: client}, nil
	}
	member, err := etcd.Start(ctx, etcd.Config{Dir: c.etcdDir(), SocketDir: c.RuntimeDir, QuotaBytes: c.EtcdQuotaBytes})
	if err != nil {
		return nil, err
	}
	noteFeatures(ctx, member.Client())
	return &store{client: member.Client(), member: member}, nil
}

// noteFeatures lets the storage layer find out what the store can do, on which
// consistent reads from the watch cache and streamed lists depend. It keeps what
// it found out by endpoint, and a client that calls its member has none.
func noteFeatures(ctx context.Context, client *clientv3.Client) {
	feature.DefaultFeatureSupportChecker.CheckClient(ctx, namedClient{client}, storage.RequestWatchProgress)
}

type namedClient struct{ *clientv3.Client }

// Endpoints shadows the client's.
func (namedClient) Endpoints() []string { return []string{"embedded"} }

// failed is closed when the store can't go on; nil, which never is, for a
// cluster: its client reconnects.
func (s *store) failed() <-chan struct{} {
	if s.member == nil {
		return nil
	}
	return s.member.Failed()
}

func (s *store) err() error { return s.member.Err() }

func (s *store) close() error {
	if s.member != nil {
		return s.member.Close()
	}
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("disconnect from etcd: %w", err)
	}
	return nil
}

// ping reads through the store.
func (s *store) ping(ctx context.Context) error {
	if s.member != nil {
		return s.member.Ping(ctx)
	}
	if _, err := s.client.Get(ctx, "health"); err != nil {
		return fmt.Errorf("read from etcd: %w", err)
	}
	return nil
}

// space returns an error if the store refuses writes for want of space. A
// cluster's space is for its owner to watch.
func (s *store) space(ctx context.Context) error {
	if s.member == nil {
		return nil
	}
	return s.member.CheckSpace(ctx)
}

func storeCheck(name string, check func(context.Context) error) healthz.HealthChecker {
	return healthz.NamedCheck(name, func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), storeCheckTimeout)
		defer cancel()
		return check(ctx)
	})
}
