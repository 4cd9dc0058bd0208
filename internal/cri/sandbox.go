package cri

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/metadata"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/cri/spec"
)

// sandbox is a pod's environment. Its identity never changes; phase and config
// are under mu.
type sandbox struct {
	id        string
	createdAt time.Time
	boot      string
	handler   string
	address   netip.Addr
	dir       string // of its files

	// life is held for reading by what needs the sandbox to stay ready, and
	// for writing by what ends it.
	life sync.RWMutex

	mu     sync.Mutex
	phase  sandboxPhase
	config *runtimeapi.PodSandboxConfig // replaced, never changed
	cpu    cpuSample

	// usesCgroup says that it is counted among the users of its cgroup; under
	// Service.cgroupUsers.
	usesCgroup bool

	// hosts guards the making of files().Hosts.
	hosts sync.Mutex

	// members are its containers, under Service.mu.
	members map[string]*container
}

func (s *Service) newSandbox(id string, config *runtimeapi.PodSandboxConfig, handler string) *sandbox {
	return &sandbox{
		id: id, createdAt: s.cfg.Clock.Now(), boot: s.boot, handler: handler, dir: filepath.Join(s.sandboxesDir(), id),
		phase: sandboxCreating, config: config, members: map[string]*container{},
	}
}

func (sb *sandbox) what() string { return "sandbox " + sb.id }

func (sb *sandbox) state() (sandboxPhase, *runtimeapi.PodSandboxConfig) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.phase, sb.config
}

// options are those of the namespaces that the pod's containers share.
func (sb *sandbox) options() *runtimeapi.NamespaceOption {
	_, config := sb.state()
	return config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (sb *sandbox) hostNetwork() bool {
	return sb.options().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

func (sb *sandbox) hostIPC() bool { return sb.options().GetIpc() == runtimeapi.NamespaceMode_NODE }

// sharesPID says that the pod's containers have one PID namespace.
func (sb *sandbox) sharesPID() bool { return sharesPID(sb.options()) }

// sharesPID says so of options; those that aren't there mean the same as their
// zero value.
func sharesPID(o *runtimeapi.NamespaceOption) bool { return o.GetPid() == runtimeapi.NamespaceMode_POD }

// kinds are the namespaces that the sandbox has of its own. A pod in the
// host's network has the host's name, too.
func (sb *sandbox) kinds() []namespace.Kind {
	var out []namespace.Kind
	if !sb.hostNetwork() {
		out = append(out, namespace.Net, namespace.UTS)
	}
	if !sb.hostIPC() {
		out = append(out, namespace.IPC)
	}
	if sb.users() != nil {
		out = append(out, namespace.User)
	}
	return out
}

func (sb *sandbox) shm() string { return filepath.Join(sb.dir, "shm") }

// files are what its containers get in /etc and /dev.
func (sb *sandbox) files() spec.Files {
	f := spec.Files{
		Hosts:      filepath.Join(sb.dir, "hosts"),
		ResolvConf: filepath.Join(sb.dir, "resolv.conf"),
		Hostname:   filepath.Join(sb.dir, "hostname"),
		Shm:        sb.shm(),
	}
	if sb.hostIPC() {
		f.Shm = "/dev/shm"
	}
	return f
}

// cgroup is the pod's, which other sandboxes of the same pod may share.
func (s *Service) cgroup(sb *sandbox) string {
	_, config := sb.state()
	if p := config.GetLinux().GetCgroupParent(); p != "" {
		return filepath.Clean("/" + p)
	}
	return filepath.Join(s.cfg.CgroupParent, sb.id)
}

// ports are its host ports; a pod in the host's network has them as they are.
func (sb *sandbox) ports() ([]network.PortMapping, error) {
	_, config := sb.state()
	if sb.hostNetwork() {
		return nil, nil
	}
	var out []network.PortMapping
	for _, p := range config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		if !isPort(p.GetHostPort()) || !isPort(p.GetContainerPort()) {
			return nil, fmt.Errorf("%w: host port %d to port %d of the pod: ports are 1 to 65535", spec.ErrInvalid, p.GetHostPort(), p.GetContainerPort())
		}
		protocol, ok := map[runtimeapi.Protocol]uint8{
			runtimeapi.Protocol_TCP: unix.IPPROTO_TCP, runtimeapi.Protocol_UDP: unix.IPPROTO_UDP, runtimeapi.Protocol_SCTP: unix.IPPROTO_SCTP,
		}[p.GetProtocol()]
		if !ok {
			return nil, fmt.Errorf("%w: host port %d: there is no protocol %d", spec.ErrInvalid, p.GetHostPort(), p.GetProtocol())
		}
		m := network.PortMapping{Protocol: protocol, HostPort: uint16(p.GetHostPort()), ContainerPort: uint16(p.GetContainerPort())}
		if p.GetHostIp() != "" {
			addr, err := netip.ParseAddr(p.GetHostIp())
			if err != nil || !addr.Is4() {
				return nil, fmt.Errorf("%w: the host port's address %q is no IPv4 address, and the pod network has no IPv6", spec.ErrInvalid, p.GetHostIp())
			}
			if !addr.IsUnspecified() {
				m.HostIP = addr
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func isPort(n int32) bool { return n > 0 && n <= math.MaxUint16 }

// sandboxName is unique among those that aren't removed.
func sandboxName(config *runtimeapi.PodSandboxConfig) string {
	m := config.GetMetadata()
	return fmt.Sprintf("sandbox %s_%s_%s_%d", m.GetName(), m.GetNamespace(), m.GetUid(), m.GetAttempt())
}

func (sb *sandbox) record() *metadata.Sandbox {
	phase, config := sb.state()
	return &metadata.Sandbox{
		ID: sb.id, CreatedAt: sb.createdAt, Boot: sb.boot, Handler: sb.handler, Address: sb.address,
		Config: metadata.Proto[*runtimeapi.PodSandboxConfig]{M: config},
		Phase: map[sandboxPhase]metadata.Phase{
			sandboxCreating: metadata.Creating, sandboxReady: metadata.Created, sandboxStopped: metadata.Ended, sandboxRemoved: metadata.Ended,
		}[phase],
	}
}

func (s *Service) addSandbox(sb *sandbox) {
	_, config := sb.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes[sb.id] = sb
	s.podSandboxes.add(config.GetLabels(), sb)
}

func (s *Service) dropSandbox(sb *sandbox) {
	_, config := sb.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sandboxes, sb.id)
	s.podSandboxes.drop(config.GetLabels(), sb)
}

// move changes the sandbox's phase and writes it down.
func (s *Service) moveSandbox(sb *sandbox, to sandboxPhase) error {
	sb.mu.Lock()
	err := advance(&sb.phase, to, sb.what())
	sb.mu.Unlock()
	if err != nil {
		return err
	}
	return s.sandboxRecords.Put(sb.id, sb.record())
}
