package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/clusterdns"
	"errand.dev/errand/internal/cri"
	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/shimapi"
	"errand.dev/errand/internal/version"
)

// cgroupRoot is where the kernel's cgroups are mounted, on every distribution.
const cgroupRoot = "/sys/fs/cgroup"

// containerRuntime is the embedded runtime and what it stands on.
type containerRuntime struct {
	shim    *oci.Client
	cgroups *cgroups.Tree
	store   *images.Store
	network *network.Manager
	// names is where pods ask for names; nil where they ask the host's resolvers.
	names *clusterdns.Sockets
	// api is where pods reach the API; nil where they don't, or where it listens on all addresses.
	api net.Listener
	// apiAddr is the cluster IP by which they reach it; invalid where they don't.
	apiAddr netip.Addr
	service *cri.Service
	// note is what whoever starts errand should know of it, "" for nothing.
	note string
}

// runtimeConfig says which runtime to open.
type runtimeConfig struct {
	options  Options
	programs Programs
	dir      *datadir.Dir
	names    instance.Names
	// api is the address that the API listens on, if pods are to reach it; else nil.
	api *net.TCPAddr
	// networkUp, if set, is called once the pods' network is there.
	networkUp func(*network.Manager)
}

// tell prints what whoever starts errand should know.
func (r *containerRuntime) tell(stderr io.Writer) {
	if r.note != "" {
		fmt.Fprintf(stderr, "errand: %s\n", r.note)
	}
}

// openRuntime opens the runtime on the data directory: it starts the shim where
// none runs, and takes over what an earlier errand left.
func openRuntime(ctx context.Context, c runtimeConfig) (_ *containerRuntime, err error) {
	r, o, dir, names := &containerRuntime{note: c.programs.Note()}, c.options, c.dir, c.names
	_, statErr := os.Stat(dir.Path("cri"))
	first := errors.Is(statErr, fs.ErrNotExist)
	defer func() {
		switch {
		case err == nil:
		case first && r.idle(ctx):
			err = &abandonedError{errors.Join(err, r.abandon(ctx, names))}
		default:
			err = errors.Join(err, r.close())
		}
	}()
	if r.cgroups, err = cgroups.Open(cgroupRoot); err != nil {
		return nil, err
	}
	r.cgroups.LimitPids(max(o.PodMaxPids, 0))
	logMaxSize, err := o.logMaxSize()
	if err != nil {
		return nil, err
	}
	namespaces, err := namespace.Open(filepath.Join(names.RuntimeDir, "ns"))
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.Go(func() (err error) { r.store, err = openStore(ctx, o, dir); return err })
	g.Go(func() (err error) { r.network, err = openNetwork(ctx, c); return err })
	g.Go(func() (err error) { r.shim, err = openShim(ctx, c.programs, o.NativeLauncher, names); return err })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if c.api != nil {
		r.apiAddr = r.network.APIAddr()
	}
	if o.ClusterDNS {
		if r.names, err = clusterdns.Listen(ctx, netip.AddrPortFrom(r.network.Gateway(), clusterdns.Port)); err != nil {
			return nil, err
		}
	}
	if c.api != nil && !c.api.IP.IsUnspecified() {
		if r.api, err = r.network.ListenAPI(ctx); err != nil {
			return nil, fmt.Errorf("%w; choose another port with --listen, or use --kubernetes-service=false, with which pods don't reach the API", err)
		}
	}
	r.service, err = cri.New(ctx, cri.Config{
		Root:          dir.Path("cri"),
		RuntimeDir:    filepath.Join(names.RuntimeDir, "cri"),
		CgroupParent:  names.CgroupParent,
		Handlers:      handlerNames(c.programs),
		HolderCommand: []string{c.programs.Shim, shimapi.Pause},
		LogMaxSize:    logMaxSize,
		LogMaxFiles:   o.ContainerLogMaxFiles,
		Version:       version.Get().Version,
		Runtime:       r.shim,
		Images:        r.store,
		Network:       r.network,
		Cgroups:       r.cgroups,
		Namespaces:    namespaces,
	})
	return r, err
}

func openNetwork(ctx context.Context, c runtimeConfig) (*network.Manager, error) {
	cfg := network.Config{
		Bridge:   c.names.Bridge,
		Table:    c.names.NFTable,
		StateDir: c.dir.Path("network"),
		Clock:    clock.RealClock{},
	}
	if c.options.ClusterDNS {
		cfg.GatewayPorts = []uint16{clusterdns.Port}
	}
	if c.api != nil {
		cfg.APIPort = uint16(c.api.Port)
	}
	var err error
	if cfg.CIDRs, err = c.options.podCIDRs(); err != nil {
		return nil, err
	}
	m, err := network.New(ctx, cfg)
	if errors.Is(err, network.ErrNoFreeRange) {
		return nil, fmt.Errorf("--pod-cidr: %w (er-… and errand0 are other errands': errand drain --data-dir removes one that isn't needed any more)", err)
	}
	if err == nil && c.networkUp != nil {
		c.networkUp(m)
	}
	return m, err
}

func openShim(ctx context.Context, p Programs, native bool, names instance.Names) (*oci.Client, error) {
	handlers := map[string]oci.Handler{}
	for name, path := range p.Runtimes {
		handlers[name] = oci.Handler{Path: path}
	}
	return oci.Connect(ctx, oci.Config{
		RuntimeDir:     names.RuntimeDir,
		ShimPath:       p.Shim,
		Handlers:       handlers,
		DefaultHandler: p.Default,
		Native:         native,
		CgroupParent:   names.CgroupParent,
	})
}

func handlerNames(p Programs) []string {
	names := make([]string, 0, len(p.Runtimes))
	for name := range p.Runtimes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// idle says whether it is certain that no container is left: an errand in a data directory that was deleted may have had some.
func (r *containerRuntime) idle(ctx context.Context) bool {
	if r.shim == nil {
		return false
	}
	containers, err := r.shim.List(context.WithoutCancel(ctx))
	return err == nil && len(containers) == 0
}

// abandon takes off the host what a first start has put there before it failed: it may never be tried again, so that nobody else would.
func (r *containerRuntime) abandon(ctx context.Context, names instance.Names) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	errs := []error{r.shim.Drain(ctx, false), r.cgroups.Remove(names.CgroupParent)}
	if r.network != nil {
		errs = append(errs, r.network.Destroy())
	}
	return errors.Join(append(errs, r.close())...)
}

// abandonedError is why a first start has failed. Nothing of it is left but the runtime directory, which the API server may be using yet.
type abandonedError struct{ error }

func (e *abandonedError) Unwrap() error { return e.error }

// close closes what this process holds; containers, their network and the shim
// stay.
func (r *containerRuntime) close() error {
	var errs []error
	if r.service != nil {
		errs = append(errs, r.service.Close(context.Background()))
	}
	if r.names != nil {
		errs = append(errs, r.names.Close())
	}
	if r.api != nil {
		if err := r.api.Close(); !errors.Is(err, net.ErrClosed) { // as the API server's
			errs = append(errs, err)
		}
	}
	if r.network != nil {
		r.network.Close()
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	return errors.Join(errs...)
}
