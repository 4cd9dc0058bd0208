package inprocess_test

import (
	"context"
	"testing"

	"errand.dev/errand/internal/apiserver/inprocess/clienttest"
)

func (s *testServer) underTest() clienttest.Server {
	return clienttest.Server{
		Clients: []clienttest.Client{{Name: "loopback", Interface: s.remote}, {Name: "in-process", Interface: s.client}},
		Compact: func(ctx context.Context) error {
			now, err := s.etcd.Client().Get(ctx, "any")
			if err != nil {
				return err
			}
			_, err = s.etcd.Client().Compact(ctx, now.Header.Revision)
			return err
		},
	}
}

func TestContract(t *testing.T) {
	clienttest.Run(t, server(t).underTest())
}
