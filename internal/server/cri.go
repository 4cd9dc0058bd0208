package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/cri/criserver"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/lifecycle"
)

// CRIOptions are what a user can set of the container runtime alone.
type CRIOptions struct {
	// Options of which those of the API, the Node and the Job engine don't count.
	Options
	// Endpoint is the address at which the CRI is served, unix://PATH; empty means
	// the socket cri.sock in the data directory's runtime directory.
	Endpoint string
}

// DefaultCRIOptions are the options before any flag. Logs aren't rotated here:
// that is a CRI client's to do (ReopenContainerLog), since it reads them.
func DefaultCRIOptions() CRIOptions {
	o := CRIOptions{Options: DefaultOptions()}
	o.ContainerLogMaxSize = "0"
	o.ClusterDNS = false
	return o
}

// Validate tells everything that is wrong with the options at once.
func (o *CRIOptions) Validate() error {
	err := errors.Join(o.validateDataDir(), o.validateNode())
	if o.Endpoint == "" {
		return err
	}
	if _, listenErr := criserver.SocketPath(o.Endpoint); listenErr != nil {
		err = errors.Join(err, fmt.Errorf("--listen %w", listenErr))
	}
	return err
}

// RunCRI serves the container runtime to CRI clients until ctx ends, then stops
// everything but the containers, and returns nil. It returns an error where it
// can't start or can't go on; what the user should know meanwhile it prints to
// stderr.
func RunCRI(ctx context.Context, o CRIOptions, stderr io.Writer) error {
	began := time.Now()
	dir, err := datadir.Open(o.DataDir)
	if err != nil {
		return err
	}
	names, err := instance.For(dir.Root())
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	manager, err := takeNotifier()
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	if o.Endpoint == "" {
		o.Endpoint = criserver.Endpoint(filepath.Join(names.RuntimeDir, "cri.sock"))
	}
	s := &serveCRI{options: o, dir: dir, names: names, group: lifecycle.NewGroup(stopTimeout)}
	err = s.start(ctx)
	if err == nil {
		s.runtime.tell(stderr)
		fmt.Fprintf(stderr, "errand's container runtime is ready after %d ms: %s\n", time.Since(began).Milliseconds(), o.Endpoint)
		fmt.Fprintf(stderr, "  export CONTAINER_RUNTIME_ENDPOINT=%s\n", o.Endpoint)
		manager.tell(ctx, daemon.SdNotifyReady)
		err = s.group.Wait(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil // asked to stop before it was ready
	}
	manager.tell(ctx, daemon.SdNotifyStopping)
	err = errors.Join(err, s.group.Stop(), s.close())
	if abandoned := (*abandonedError)(nil); errors.As(err, &abandoned) {
		err = errors.Join(err, removeRuntimeDir(names))
	}
	leaveRuntimeDir(names)
	return errors.Join(err, dir.Close())
}

// serveCRI is one run of the container runtime without a node.
type serveCRI struct {
	options CRIOptions
	dir     *datadir.Dir
	names   instance.Names
	group   *lifecycle.Group

	runtime *containerRuntime
	server  *criserver.Server
}

// start starts every component, each once those it leans on are ready.
func (s *serveCRI) start(ctx context.Context) (err error) {
	programs := FindPrograms(s.options.Options)
	if err := programs.serve(s.options.NativeLauncher); err != nil {
		return err
	}
	if err := makeRuntimeDir(s.names.RuntimeDir, true); err != nil {
		return err
	}
	if s.server, err = criserver.Listen(ctx, s.options.Endpoint); err != nil {
		return err
	}
	if s.runtime, err = openRuntime(ctx, runtimeConfig{options: s.options.Options, programs: programs, dir: s.dir, names: s.names}); err != nil {
		s.runtime = nil // closed already
		return err
	}
	images, err := control.Listen(s.names.RuntimeDir, &imageCommands{s.runtime.store}, traceCommand{})
	if err != nil {
		return err
	}
	s.group.Start(ctx, "pod network", s.runtime.network.Run)
	s.group.Start(ctx, "container runtime", s.runtime.service.Run)
	s.group.Start(ctx, "control socket", images.Run)
	s.group.Start(ctx, "CRI server", func(ctx context.Context) error {
		return s.server.Run(ctx, s.runtime.service, s.runtime.store.Service())
	})
	return nil
}

// close closes what the components shared, after they have ended.
func (s *serveCRI) close() error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	if s.runtime != nil {
		errs = append(errs, s.runtime.close())
	}
	return errors.Join(errs...)
}
