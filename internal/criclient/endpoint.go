package criclient

import (
	"fmt"
	"net/url"
	"path/filepath"
)

// SocketPath is the path in an endpoint such as
// unix:///run/containerd/containerd.sock. The error says what is wrong with one
// that isn't such.
func SocketPath(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "unix" || u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not a socket's URL such as unix:///run/containerd/containerd.sock", endpoint)
	}
	return u.Path, nil
}
