package etcd

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"
)

const (
	dialTimeout      = 5 * time.Second
	keepAliveTime    = 30 * time.Second
	keepAliveTimeout = 10 * time.Second
)

// External names an etcd cluster of the user's own.
type External struct {
	// Endpoints are URLs such as https://etcd-0:2379 or unix:///run/etcd.sock.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files; all empty means no TLS.
	CAFile, CertFile, KeyFile string
}

// Dial connects to an etcd cluster and returns once one of its members
// answered. The caller closes the client.
func Dial(ctx context.Context, ext External) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints:            ext.Endpoints,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		Logger:               newLogger(klog.FromContext(ctx), newFatalSignal(), new(atomic.Bool)),
	}
	if ext.CAFile != "" || ext.CertFile != "" || ext.KeyFile != "" {
		info := transport.TLSInfo{TrustedCAFile: ext.CAFile, CertFile: ext.CertFile, KeyFile: ext.KeyFile}
		tlsConfig, err := info.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("read the TLS files for etcd: %w", err)
		}
		cfg.TLS = tlsConfig
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", ext.Endpoints, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := client.Get(ctx, "health"); err != nil {
		_ = client.Close() // its error would only hide the first
		return nil, fmt.Errorf("etcd at %v doesn't answer: check --etcd-servers and its TLS files: %w", ext.Endpoints, err)
	}
	return client, nil
}
