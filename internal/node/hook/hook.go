// Package hook carries out lifecycle hooks: what a pod's postStart and preStop ask
// for, in words and manner the kubelet's. When they are due, how long they may take
// and what their failure means is the node agent's.
package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	"k8s.io/utils/clock"
)

// maxBody is how much of an answer is read, in bytes: enough to be polite.
const maxBody = 10 << 10

// Exec runs a command in a running container until it ends or ctx does, and
// returns all that it wrote. A command that fails is an error.
type Exec func(ctx context.Context, containerID string, command []string) ([]byte, error)

// Runner carries out hooks. Its methods may be called concurrently.
type Runner struct {
	exec  Exec
	clock clock.Clock
	http  *http.Client
}

// New returns a Runner. It asks servers without checking their certificates, and
// follows no redirection to another host.
func New(exec Exec, clk clock.Clock) *Runner {
	const followToOtherHosts = false
	return &Runner{exec: exec, clock: clk, http: &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		CheckRedirect: httpprobe.RedirectChecker(followToOtherHosts),
	}}
}

// Call is a hook to carry out.
type Call struct {
	Pod       *v1.Pod
	Container *v1.Container
	// ID is the CRI's for the container.
	ID string
	// Host is the address that requests go to unless they name one; "" is an error
	// for those.
	Host    string
	Handler *v1.LifecycleHandler
}

// Run carries out the hook; it has no time limit but ctx. An HTTP server may answer
// what it likes. fellBack tells that a server that should have spoken HTTPS didn't.
func (r *Runner) Run(ctx context.Context, c Call) (fellBack string, err error) {
	fail := func(kind string, what any, err error) error {
		return fmt.Errorf("%s lifecycle hook (%v) for Container %q in Pod \"%s_%s(%s)\" failed - error: %w",
			kind, what, c.Container.Name, c.Pod.Name, c.Pod.Namespace, c.Pod.UID, err)
	}
	switch h := c.Handler; {
	case h.Exec != nil:
		if out, err := r.exec(ctx, c.ID, h.Exec.Command); err != nil {
			return "", fmt.Errorf("%w, message: %q", fail("Exec", h.Exec.Command, err), out)
		}
	case h.HTTPGet != nil:
		if fellBack, err = r.get(ctx, c); err != nil {
			return "", fail("HTTP", h.HTTPGet.Path, err)
		}
	case h.Sleep != nil:
		if err := r.sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second); err != nil {
			return "", fail("Sleep", h.Sleep.Seconds, err)
		}
	default:
		return "", fmt.Errorf("cannot run the lifecycle hook of container %s: only exec, httpGet and sleep can be run", c.Container.Name)
	}
	return fellBack, nil
}

func (r *Runner) sleep(ctx context.Context, d time.Duration) error {
	timer := r.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return errors.New("container terminated before sleep hook finished")
	}
}

func (r *Runner) get(ctx context.Context, c Call) (fellBack string, err error) {
	if c.Handler.HTTPGet.Host == "" && c.Host == "" {
		return "", errors.New("the pod has no address")
	}
	req, err := httpprobe.NewRequestForHTTPGetAction(c.Handler.HTTPGet, c.Container, c.Host, "lifecycle")
	if err != nil {
		return "", err
	}
	req = req.WithContext(ctx)
	err = r.do(req)
	if err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return "", err
	}
	plain := req.Clone(ctx)
	plain.URL.Scheme = "http"
	plain.Header.Del("Authorization")
	return req.URL.Host, r.do(plain)
}

func (r *Runner) do(req *http.Request) error {
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
	return resp.Body.Close()
}
