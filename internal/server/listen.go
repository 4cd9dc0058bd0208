package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/atomicfile"
	"errand.dev/errand/internal/datadir"
)

// portFile holds the port that a --listen with port 0 came to.
const portFile = "api-port"

// listen opens the API's listener. Port 0 is the one of the last time, if that is free:
// clients that wait for errand's return, and kubeconfigs that somebody has, know no other.
func listen(ctx context.Context, address string, dir *datadir.Dir) (net.Listener, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--listen %q is not host:port: %w", address, err)
	}
	if port, err := net.LookupPort("tcp", service); err != nil || port != 0 {
		return apiserver.Listen(ctx, address)
	}
	path := dir.Path(portFile)
	if last, ok := readPort(path); ok {
		if l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, last)); err == nil {
			return l, nil
		}
	}
	l, err := apiserver.Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := atomicfile.Write(path, []byte(port+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// readPort reads a kept port. One that can't be read is none: any other will do.
func readPort(path string) (port string, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	port = strings.TrimSpace(string(b))
	_, err = strconv.ParseUint(port, 10, 16)
	return port, err == nil
}
