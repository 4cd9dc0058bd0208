package apiserver

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
)

// coldLister refuses so many lists, as a watch cache does that isn't filled yet.
type coldLister struct {
	rest.Lister
	refusals int
}

func (l *coldLister) List(context.Context, *metainternalversion.ListOptions) (runtime.Object, error) {
	if l.refusals--; l.refusals >= 0 {
		return nil, apierrors.NewTooManyRequests("storage is (re)initializing", 1)
	}
	return &api.ServiceList{Items: []api.Service{{Spec: api.ServiceSpec{ClusterIPs: []string{"10.96.0.7"}}}}}, nil
}

// A start on a busy machine waits for the watch cache instead of failing.
func TestServiceAddressesWaitForTheWatchCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cidr, err := net.ParseCIDR("10.96.0.0/24")
		if err != nil {
			t.Fatal(err)
		}
		s, err := newServiceAddresses(cidr, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		s.lister = &coldLister{refusals: 3}
		if err := s.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !s.ips.Has(net.ParseIP("10.96.0.7")) {
			t.Error("the stored Service's address isn't taken")
		}
	})
}

func TestServiceAddressesStopWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &serviceAddresses{lister: &coldLister{refusals: 1}}
	if err := s.load(ctx); !apierrors.IsTooManyRequests(err) {
		t.Errorf("load returned %v, want what it was refused with", err)
	}
}
