package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	execprobe "k8s.io/kubernetes/pkg/probe/exec"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	utilexec "k8s.io/utils/exec"
)

// Exec runs a command in a running container, ends it when timeout (> 0) is over
// or ctx ends, and returns all that it wrote. A command that fails gives a
// utilexec.ExitError; one whose time is over an error that is
// k8s.io/cri-client/pkg.ErrCommandTimedOut.
type Exec func(ctx context.Context, containerID string, command []string, timeout time.Duration) ([]byte, error)

// attempts is how often a probe is tried that can't be carried out.
const attempts = 3

// errNoAddress keeps a probe from asking this machine instead of the pod.
var errNoAddress = errors.New("the pod has no address")

// asker carries out probes. Its methods may be called concurrently.
type asker struct {
	run  Exec
	exec execprobe.Prober
	http httpprobe.Prober
	tcp  tcpprobe.Prober
	grpc grpcprobe.Prober
}

func newAsker(run Exec) *asker {
	const followToOtherHosts = false
	return &asker{run: run, exec: execprobe.New(), http: httpprobe.New(followToOtherHosts), tcp: tcpprobe.New(), grpc: grpcprobe.New()}
}

// ask carries out a probe and returns what it found, in words, too. An error means
// that it couldn't be carried out. It ends with ctx, at the latest with the probe's
// timeout.
func (a *asker) ask(ctx context.Context, t Target, spec *v1.Probe) (result probe.Result, output string, err error) {
	for range attempts {
		if result, output, err = a.askOnce(ctx, t, spec); err == nil || ctx.Err() != nil {
			break
		}
	}
	return result, output, err
}

func (a *asker) askOnce(ctx context.Context, t Target, spec *v1.Probe) (probe.Result, string, error) {
	timeout := max(time.Duration(spec.TimeoutSeconds)*time.Second, time.Second)
	switch {
	case spec.Exec != nil:
		run := func() ([]byte, error) {
			return a.run(ctx, t.ID, expandStatic(spec.Exec.Command, t.Container), timeout)
		}
		return a.exec.Probe(&command{run: run})
	case spec.HTTPGet != nil:
		return a.askHTTP(ctx, t, spec.HTTPGet, timeout)
	case spec.TCPSocket != nil && spec.TCPSocket.Host == "" && t.Host == "", spec.GRPC != nil && t.Host == "":
		return probe.Unknown, "", errNoAddress
	case spec.TCPSocket != nil:
		port, err := probe.ResolveContainerPort(spec.TCPSocket.Port, t.Container)
		if err != nil {
			return probe.Unknown, "", err
		}
		host := spec.TCPSocket.Host
		if host == "" {
			host = t.Host
		}
		return unlessOver(ctx, func() (probe.Result, string, error) { return a.tcp.Probe(host, port, timeout) })
	case spec.GRPC != nil:
		service := ""
		if spec.GRPC.Service != nil {
			service = *spec.GRPC.Service
		}
		opts := grpcprobe.ProbeOptions{UseTLS: spec.GRPC.Mode != nil && *spec.GRPC.Mode == v1.GRPCProbeModeTLS}
		return unlessOver(ctx, func() (probe.Result, string, error) {
			return a.grpc.Probe(t.Host, service, int(spec.GRPC.Port), timeout, opts)
		})
	default:
		return probe.Unknown, "", fmt.Errorf("the probe of container %s names no handler", t.Container.Name)
	}
}

func (a *asker) askHTTP(ctx context.Context, t Target, get *v1.HTTPGetAction, timeout time.Duration) (probe.Result, string, error) {
	if get.Host == "" && t.Host == "" {
		return probe.Unknown, "", errNoAddress
	}
	req, err := httpprobe.NewRequestForHTTPGetAction(get, t.Container, t.Host, "probe")
	if err != nil {
		return probe.Unknown, "", err
	}
	req = req.WithContext(ctx)
	if get.Protocol != nil && *get.Protocol == v1.HTTPProtocolHTTP2 {
		return a.http.ProbeH2C(req, timeout)
	}
	return a.http.Probe(req, timeout)
}

// unlessOver waits for f, which knows no context but ends by its own timeout, only
// as long as ctx.
func unlessOver(ctx context.Context, f func() (probe.Result, string, error)) (probe.Result, string, error) {
	type answer struct {
		result probe.Result
		output string
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		var got answer
		got.result, got.output, got.err = f()
		answered <- got
	}()
	select {
	case got := <-answered:
		return got.result, got.output, got.err
	case <-ctx.Done():
		return probe.Unknown, "", ctx.Err()
	}
}

// expandStatic replaces $(NAME) by what the spec itself gives the container:
// probes see nothing of what comes from other objects.
func expandStatic(words []string, c *v1.Container) []string {
	values := make(map[string]string, len(c.Env))
	for _, e := range c.Env {
		values[e.Name] = e.Value
	}
	mapping := expansion.MappingFuncFor(values)
	expanded := make([]string, len(words))
	for i, w := range words {
		expanded[i] = expansion.Expand(w, mapping)
	}
	return expanded
}

// command is as much of a utilexec.Cmd as the exec prober uses; other methods
// panic.
type command struct {
	utilexec.Cmd
	run func() ([]byte, error)
	out io.Writer
}

func (c *command) SetStdout(w io.Writer) { c.out = w }
func (c *command) SetStderr(w io.Writer) { c.out = w }
func (c *command) Wait() error           { return nil }

func (c *command) Start() error {
	out, err := c.run()
	_, _ = c.out.Write(out) // keeps as much as it wants
	return err
}
