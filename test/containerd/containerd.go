// Package containerd runs a containerd of the tests' own, on which errand's node
// and the CRI's contract suite are tried: built from its module (see programs),
// with every directory, socket, bridge and range of its own, and images from a
// registry on loopback.
package containerd

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/internal/oci/shimapi"
	"errand.dev/errand/test/registry"
)

// patience bounds what takes long only where something hangs.
const patience = 30 * time.Second

// pauseImage is what a sandbox's own process is of.
const pauseImage = "library/pause:latest"

// Config says what runs.
type Config struct {
	// Bin has the folder containerd with its programs, and errand-shim and runc.
	Bin string
	// Images is where all of docker.io's images come from. It is given one for
	// sandboxes.
	Images *registry.Server
	// AsCRIO has the CRI answered as CRI-O does, where the two differ.
	AsCRIO bool
}

// Containerd is a containerd that has been started.
type Containerd struct {
	cfg    Config
	dir    string
	bridge string
	cmd    *exec.Cmd
	done   chan struct{}
	crio   *asCRIO // nil unless cfg.AsCRIO
}

//go:embed config.toml
var configToml string

//go:embed net.conflist
var conflist string

// Start starts a containerd and returns once its CRI serves. The caller closes it.
func Start(ctx context.Context, cfg Config) (*Containerd, error) {
	dir, err := os.MkdirTemp("/tmp", "ctrd-")
	if err != nil {
		return nil, err
	}
	// As below /run: containers' roots are reached through it by root of a pod with a user namespace.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	c := &Containerd{cfg: cfg, dir: dir, bridge: fmt.Sprintf("ct-%x", sum[:4])}
	if err = c.configure(sum[4]); err == nil {
		err = c.Launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// configure writes all files, and pushes the sandboxes' image.
func (c *Containerd) configure(third byte) error {
	pause, err := os.ReadFile(filepath.Join(c.cfg.Bin, "errand-shim"))
	if err != nil {
		return err
	}
	layer, err := registry.Layer(registry.Owner{}, registry.File{Name: "pause", Mode: 0o755, Body: pause})
	if err != nil {
		return err
	}
	image, err := registry.ImageOf("", func(c *v1.Config) { c.Entrypoint = []string{"/pause", shimapi.Pause} }, layer)
	if err != nil {
		return err
	}
	if err := c.cfg.Images.Push(pauseImage, image); err != nil {
		return err
	}
	values := struct{ Dir, Bin, Bridge, Subnet, Pause string }{
		c.dir, c.cfg.Bin, c.bridge, fmt.Sprintf("198.18.%d.0/24", third), "docker.io/" + pauseImage, // RFC 2544's range, for tests
	}
	hosts := fmt.Sprintf("server = %[1]q\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+c.cfg.Images.Addr())
	for name, text := range map[string]string{"config.toml": configToml, "net.d/10-test.conflist": conflist, "certs.d/docker.io/hosts.toml": hosts} {
		var b strings.Builder
		if err := template.Must(template.New(name).Parse(text)).Execute(&b, values); err != nil {
			return err
		}
		path := filepath.Join(c.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Launch starts the process, at first or again after it was killed, and returns
// once its CRI serves.
func (c *Containerd) Launch(ctx context.Context) error {
	log, err := os.OpenFile(c.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command(filepath.Join(c.cfg.Bin, "containerd", "containerd"), "--config", c.path("config.toml"))
	// Its shim is found beside it, and so is nothing of the host's.
	c.cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.cfg.Bin, "containerd")+":"+os.Getenv("PATH"))
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // how it ended is in its log
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.serves(ctx); err != nil {
		return fmt.Errorf("containerd did not become ready: %w; it said:\n%s", err, c.Log())
	}
	if c.cfg.AsCRIO {
		c.crio, err = serveAsCRIO(c.own(), c.path("crio.sock"))
	}
	return err
}

// serves waits until the CRI answers that it and its network are ready.
func (c *Containerd) serves(ctx context.Context) error {
	conn, err := grpc.NewClient(c.own(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	runtime := runtimeapi.NewRuntimeServiceClient(conn)
	for {
		status, err := runtime.Status(ctx, &runtimeapi.StatusRequest{}, grpc.WaitForReady(true))
		conditions := status.GetStatus().GetConditions()
		ready := func(kind string) bool {
			return slices.ContainsFunc(conditions, func(c *runtimeapi.RuntimeCondition) bool { return c.GetType() == kind && c.GetStatus() })
		}
		if err == nil && ready(runtimeapi.RuntimeReady) && ready(runtimeapi.NetworkReady) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err, fmt.Errorf("conditions %v", conditions))
		case <-c.done:
			return errors.New("it ended")
		case <-time.After(20 * time.Millisecond): // its plugins start one after the other, and tell nobody
		}
	}
}

func (c *Containerd) path(name string) string { return filepath.Join(c.dir, name) }

// Endpoint is the CRI's socket.
func (c *Containerd) Endpoint() string {
	if c.cfg.AsCRIO {
		return "unix://" + c.path("crio.sock")
	}
	return c.own()
}

// own is the socket of containerd itself.
func (c *Containerd) own() string { return "unix://" + c.path("c.sock") }

// Log is what it said.
func (c *Containerd) Log() string {
	b, _ := os.ReadFile(c.path("log")) // for people
	return string(b)
}

// Kill ends the process as a crash would. Containers go on.
func (c *Containerd) Kill() error {
	if c.done == nil {
		return nil
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.done
	return c.closeCRIO()
}

func (c *Containerd) closeCRIO() error {
	crio := c.crio
	if c.crio = nil; crio == nil {
		return nil
	}
	return crio.close()
}

// Sandboxes are those with a label, or all without.
func (c *Containerd) Sandboxes(ctx context.Context, labels map[string]string) ([]*runtimeapi.PodSandbox, error) {
	runtime, err := c.runtime(ctx)
	if err != nil {
		return nil, err
	}
	defer runtime.Close(ctx)
	return runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: labels})
}

// Status is what it says of a container.
func (c *Containerd) Status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	runtime, err := c.runtime(ctx)
	if err != nil {
		return nil, err
	}
	defer runtime.Close(ctx)
	resp, err := runtime.ContainerStatus(ctx, id, false)
	return resp.GetStatus(), err
}

func (c *Containerd) runtime(ctx context.Context) (internalapi.RuntimeService, error) {
	return remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(c.own()).WithConnectionTimeout(patience).Build(ctx)
}

// Close ends it with all that it runs, and removes what it had. What containerd
// itself has lost track of, as it does when its client is killed again and again
// in the middle of RunPodSandbox, is ended, too, and told to stderr.
func (c *Containerd) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	if c.done != nil {
		errs = append(errs, c.endSandboxes(ctx), c.closeCRIO(), c.stop(ctx))
	}
	errs = append(errs, c.killShims(), c.unmount(), c.removeBridge())
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

func (c *Containerd) endSandboxes(ctx context.Context) error {
	runtime, err := c.runtime(ctx)
	if err != nil {
		return err
	}
	defer runtime.Close(ctx)
	left, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range left {
		c.tell("a sandbox of pod %s/%s", s.GetMetadata().GetNamespace(), s.GetMetadata().GetName())
		errs = append(errs, runtime.StopPodSandbox(ctx, s.GetId()), runtime.RemovePodSandbox(ctx, s.GetId()))
	}
	return errors.Join(errs...)
}

func (c *Containerd) stop(ctx context.Context) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("containerd didn't end at SIGTERM"), c.Kill())
	}
}

// tell says what was left to be ended.
func (c *Containerd) tell(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "test/containerd: ending what containerd has left: "+format+"\n", args...)
}

// killShims kills the shims that serve this containerd, by their command lines.
func (c *Containerd) killShims() error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		argv := strings.Split(string(b), "\x00")
		if filepath.Base(argv[0]) != "containerd-shim-runc-v2" || !slices.Contains(argv, c.path("c.sock")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			c.tell("the shim %d", pid)
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Containerd) unmount() error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(c.dir))
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		c.tell("the mount %s", m.Mountpoint)
		errs = append(errs, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	return errors.Join(errs...)
}

// removeBridge removes what CNI's plugins leave on the host for the next pod. The
// firewall's table is every portmap's: it stays if another's ports are in it.
func (c *Containerd) removeBridge() error {
	return errors.Join(c.removeLink(), removeHostPorts())
}

func removeHostPorts() error {
	const table = "cni_hostport" // portmap's
	conn := &nftables.Conn{}
	chains, err := conn.ListChains()
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if chain.Table.Name == table && (chain.Name == "hostports" || chain.Name == "hostip_hostports") {
			rules, err := conn.GetRules(chain.Table, chain)
			if err != nil || len(rules) > 0 {
				return err
			}
		}
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == table {
			conn.DelTable(t)
		}
	}
	return conn.Flush()
}

func (c *Containerd) removeLink() error {
	link, err := netlink.LinkByName(c.bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
