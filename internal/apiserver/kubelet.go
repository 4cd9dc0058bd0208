package apiserver

import (
	"context"
	"io"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// nodeConnections tells the registries how to reach a node's agent: errand's
// own by the private socket, any other at the address that its Node reports.
type nodeConnections struct {
	nodeName  types.NodeName
	transport http.RoundTripper // nil: errand runs no node
	others    kubeletclient.ConnectionInfoGetter
}

var _ kubeletclient.ConnectionInfoGetter = &nodeConnections{}

// nodeHost only fills the Host header: the transport doesn't dial it. The node
// proxy would look up a name and refuses loopback addresses; this one is set
// aside for documentation.
const nodeHost = "192.0.2.1"

// nodeTransport speaks plain HTTP on the connections that dial makes. The
// socket's file mode keeps others out.
func nodeTransport(dial func(context.Context) (net.Conn, error)) http.RoundTripper {
	if dial == nil {
		return nil
	}
	return lateEnds{utilnet.SetTransportDefaults(&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	})}
}

// lateEnds tells of an answer's end only after its last bytes, never with them.
// A short log comes whole and ended from the socket, and upstream drops what
// comes with the end where it sends logs over a websocket.
type lateEnds struct{ http.RoundTripper }

var _ utilnet.RoundTripperWrapper = lateEnds{}

// WrappedRoundTripper lets upstream's proxies find the dialer.
func (l lateEnds) WrappedRoundTripper() http.RoundTripper { return l.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l lateEnds) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	// The body of an upgraded connection is the connection, to be written to, too.
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = lateEnd{resp.Body}
	}
	return resp, err
}

type lateEnd struct{ io.ReadCloser }

// Read implements io.Reader. What has ended says so again when it is read once
// more.
func (l lateEnd) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// GetConnectionInfo implements kubeletclient.ConnectionInfoGetter.
func (n *nodeConnections) GetConnectionInfo(ctx context.Context, name types.NodeName) (*kubeletclient.ConnectionInfo, error) {
	if n.transport == nil || name != n.nodeName {
		return n.others.GetConnectionInfo(ctx, name)
	}
	return &kubeletclient.ConnectionInfo{
		Scheme:                         "http",
		Hostname:                       nodeHost,
		Port:                           "10250",
		Transport:                      n.transport,
		InsecureSkipTLSVerifyTransport: n.transport,
	}, nil
}

// otherNodes configures how agents of the user's own nodes are reached, which
// is as kube-apiserver does it.
func otherNodes() kubeletclient.KubeletClientConfig {
	return kubeletclient.KubeletClientConfig{
		Port:                  10250,
		PreferredAddressTypes: []string{"InternalIP", "Hostname", "ExternalIP"},
	}
}

// podTransport reaches pods at their own addresses, for the pod proxy.
func podTransport() *http.Transport {
	return utilnet.SetTransportDefaults(&http.Transport{})
}
