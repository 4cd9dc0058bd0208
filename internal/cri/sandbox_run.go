package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/cri/spec"
	"errand.dev/errand/internal/podtrace"
)

// shmSize is that of a pod's /dev/shm in bytes, as everywhere.
const shmSize = "size=67108864"

// RunPodSandbox makes a sandbox, ready for containers, and returns its ID. On
// failure nothing is left of it. Codes: InvalidArgument, AlreadyExists (the same
// name, namespace, UID and attempt), ResourceExhausted (no address is free).
func (s *Service) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := s.checkSandbox(config, handler); err != nil {
		return "", toStatus(err)
	}
	sb := s.newSandbox(newID(), config, handler)
	name := sandboxName(config)
	if err := s.reserve(name, sb.id); err != nil {
		return "", toStatus(err)
	}
	if err := s.makeSandbox(ctx, sb); err != nil {
		// The caller's context may be what ended it; the cleaning must not be.
		clean := context.WithoutCancel(ctx)
		err = errors.Join(err, s.unmakeSandbox(clean, sb), s.forgetSandbox(clean, sb))
		s.release(name)
		return "", toStatus(fmt.Errorf("failed to create pod sandbox: %w", err))
	}
	s.addSandbox(sb)
	klog.FromContext(ctx).V(3).Info("Sandbox is ready", "sandbox", sb.id, "pod", klog.KRef(config.GetMetadata().GetNamespace(), config.GetMetadata().GetName()), "address", sb.address)
	return sb.id, nil
}

func (s *Service) checkSandbox(config *runtimeapi.PodSandboxConfig, handler string) error {
	options := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch {
	case config.GetMetadata() == nil:
		return fmt.Errorf("%w: the sandbox's metadata is missing", spec.ErrInvalid)
	case handler != "" && !slices.Contains(s.cfg.Handlers, handler):
		return fmt.Errorf("%w: failed to get sandbox runtime: no runtime for %q is configured: name one with --runtime %s=/PATH", spec.ErrInvalid, handler, handler)
	case config.GetLogDirectory() != "" && !filepath.IsAbs(config.GetLogDirectory()):
		return fmt.Errorf("%w: the log directory %q is not an absolute path", spec.ErrInvalid, config.GetLogDirectory())
	case config.GetWindows() != nil:
		return fmt.Errorf("%w: Windows sandboxes don't run on Linux", spec.ErrInvalid)
	case sharesPID(options) && len(s.cfg.HolderCommand) == 0:
		return fmt.Errorf("%w: a shared process namespace (shareProcessNamespace) needs errand-shim, which wasn't found", spec.ErrInvalid)
	}
	if err := s.checkUsers(options); err != nil {
		return err
	}
	return checkSysctls(config, options)
}

// checkSysctls refuses those that would change the host.
func checkSysctls(config *runtimeapi.PodSandboxConfig, options *runtimeapi.NamespaceOption) error {
	for name := range config.GetLinux().GetSysctls() {
		ipc := strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || strings.HasPrefix(name, "kernel.sem") ||
			strings.HasPrefix(name, "fs.mqueue.")
		net := strings.HasPrefix(name, "net.")
		switch {
		case !ipc && !net:
			return fmt.Errorf("%w: sysctl %q is not in a namespace of the pod's", spec.ErrInvalid, name)
		case net && options.GetNetwork() == runtimeapi.NamespaceMode_NODE:
			return fmt.Errorf("%w: sysctl %q can't be set: the pod uses the host's network", spec.ErrInvalid, name)
		case ipc && options.GetIpc() == runtimeapi.NamespaceMode_NODE:
			return fmt.Errorf("%w: sysctl %q can't be set: the pod uses the host's IPC namespace", spec.ErrInvalid, name)
		}
	}
	return nil
}

// makeSandbox writes the record first: what follows is found again by it.
func (s *Service) makeSandbox(ctx context.Context, sb *sandbox) error {
	ports, err := sb.ports()
	if err != nil {
		return err
	}
	if !sb.hostNetwork() {
		if sb.address, err = s.cfg.Network.Reserve(sb.id); err != nil {
			return err
		}
	}
	if err := s.sandboxRecords.Put(sb.id, sb.record()); err != nil {
		return err
	}
	_, config := sb.state()
	linux := config.GetLinux()
	_, step := podtrace.Start(ctx, "CreateCgroup", "")
	err = s.makeCgroup(sb, cgroups.PodLimits(linux.GetResources(), linux.GetOverhead()))
	step.End(err)
	if err != nil {
		return err
	}
	if err := s.makeFiles(sb); err != nil {
		return err
	}
	if err := s.makeNamespaces(ctx, sb, ports); err != nil {
		return err
	}
	if sb.sharesPID() {
		if err := s.runHolder(ctx, sb); err != nil {
			return err
		}
	}
	return s.moveSandbox(sb, sandboxReady)
}

// makeFiles writes what containers get as /etc/resolv.conf and /etc/hostname,
// and mounts their common /dev/shm. /etc/hosts waits for a container that
// doesn't bring its own.
func (s *Service) makeFiles(sb *sandbox) error {
	if err := os.Mkdir(sb.dir, 0o700); err != nil {
		return fmt.Errorf("make the sandbox's directory: %w", err)
	}
	if err := sb.openToRoot(sb.dir); err != nil {
		return err
	}
	_, config := sb.state()
	hostname := config.GetHostname()
	if hostname == "" || sb.hostNetwork() {
		var err error
		if hostname, err = os.Hostname(); err != nil {
			return fmt.Errorf("read the host's name: %w", err)
		}
	}
	resolv, err := resolvConf(config.GetDnsConfig())
	if err != nil {
		return err
	}
	for path, content := range map[string]string{sb.files().Hostname: hostname + "\n", sb.files().ResolvConf: resolv} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the sandbox's files: %w", err)
		}
		if err := sb.giveToRoot(path); err != nil {
			return err
		}
	}
	if sb.hostIPC() {
		return nil
	}
	if err := os.Mkdir(sb.shm(), 0o1777); err != nil {
		return fmt.Errorf("make the sandbox's /dev/shm: %w", err)
	}
	tmpfs := mount.Mount{Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", shmSize}}
	if users := sb.users(); users != nil {
		uid, gid := users.Owner()
		tmpfs.Options = append(tmpfs.Options, fmt.Sprintf("uid=%d", uid), fmt.Sprintf("gid=%d", gid))
	}
	if err := s.cfg.Mounter.Mount(sb.shm(), []mount.Mount{tmpfs}); err != nil {
		return fmt.Errorf("mount the sandbox's /dev/shm: %w", err)
	}
	return nil
}

// resolvConf is the host's for a pod without a DNS configuration.
func resolvConf(dns *runtimeapi.DNSConfig) (string, error) {
	var b strings.Builder
	if len(dns.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.GetSearches(), " "))
	}
	for _, server := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(dns.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.GetOptions(), " "))
	}
	if b.Len() > 0 {
		return b.String(), nil
	}
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the host's DNS configuration: %w", err)
	}
	return string(host), nil
}

func (s *Service) makeNamespaces(ctx context.Context, sb *sandbox, ports []network.PortMapping) error {
	_, config := sb.state()
	// The one of users is made first of all, as Users has it.
	kinds := slices.DeleteFunc(sb.kinds(), func(k namespace.Kind) bool { return k == namespace.User })
	if len(kinds) == 0 {
		return nil
	}
	var pod *network.Pod
	ns := namespace.Spec{Kinds: kinds, Users: sb.users(), Hostname: config.GetHostname(), Sysctls: config.GetLinux().GetSysctls()}
	if !sb.hostNetwork() {
		ns.Inside = func() (err error) {
			pod, err = network.OpenPod()
			return err
		}
	}
	_, step := podtrace.Start(ctx, "CreateNamespaces", "")
	err := s.cfg.Namespaces.Create(sb.id, ns)
	step.End(err)
	if err != nil {
		if pod != nil {
			err = errors.Join(err, pod.Close())
		}
		return err
	}
	if pod == nil {
		return nil
	}
	_, step = podtrace.Start(ctx, "AttachNetwork", sb.address.String())
	err = s.cfg.Network.Attach(sb.id, pod, sb.address, ports)
	step.End(err)
	return errors.Join(err, pod.Close())
}
