//go:build node

package critest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func identity(p *Pod) {
	st := p.status(p.create("true", func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{"a": "b"}
		c.Image.UserSpecifiedImage = "busybox"
	}))
	if st.GetAnnotations()["a"] != "b" || st.GetLabels()["name"] == "" || st.GetMetadata().GetName() == "" {
		p.Errorf("status %v", st)
	}
	// containerd tells another name of the same image.
	if name := st.GetImage().GetUserSpecifiedImage(); name != "busybox" && !(p.Foreign && name == "" && st.GetImage().GetImage() != "") {
		p.Errorf("image %v", st.GetImage())
	}
	sb := p.sandbox()
	if sb.GetAnnotations()["note"] != "kept" || sb.GetMetadata().GetUid() != p.Config.Metadata.Uid || sb.GetLabels()["test"] == "" {
		p.Errorf("sandbox %v", sb)
	}
}

func environment(p *Pod) {
	p.wantRun("/bin:x y:"+p.Config.Hostname, `echo "$PATH:$A:$HOSTNAME"`, func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "PATH", Value: []byte("/bin")}, {Key: "A", Value: []byte("x y")}}
	})
	p.wantRun("/tmp", "pwd", func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "/tmp" })
	p.wantRun("a b", "", func(c *runtimeapi.ContainerConfig) { c.Command, c.Args = []string{"echo"}, []string{"a", "b"} })
	// Without a command the image's own, a shell, which ends at once on no input.
	p.run("", func(c *runtimeapi.ContainerConfig) { c.Command = nil })
}

func files(p *Pod) {
	p.wantRun("search a.test b.test\nnameserver 192.0.2.53\noptions ndots:5", "cat /etc/resolv.conf")
	p.wantRun(p.Config.Hostname+"\n"+p.Config.Hostname, "cat /etc/hostname; hostname")
	hosts := filepath.Join(p.TempDir(), "hosts")
	p.must(os.WriteFile(hosts, []byte("192.0.2.9 nine\n"), 0o644))
	p.wantRun("192.0.2.9 nine", "cat /etc/hosts", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/etc/hosts", HostPath: hosts}}
	})
	p.run("test -s /etc/hosts")
}

func mounts(p *Pod) {
	dir := p.TempDir()
	with := func(m *runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{m} }
	}
	p.run("echo data > /data/f", with(&runtimeapi.Mount{ContainerPath: "/data", HostPath: dir}))
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "data\n" {
		p.Errorf("the host sees %q, %v", b, err)
	}
	p.wantRun("data", "echo x 2>/dev/null > /data/f || cat /data/f", with(&runtimeapi.Mount{ContainerPath: "/data", HostPath: dir, Readonly: true}))
	p.wantRun("data", "cat /one", with(&runtimeapi.Mount{ContainerPath: "/one", HostPath: filepath.Join(dir, "f"), Readonly: true}))
	made := filepath.Join(dir, "a/b")
	p.run("test -d /made", with(&runtimeapi.Mount{ContainerPath: "/made", HostPath: made}))
	// /dev/shm is the pod's, not the container's.
	p.run("echo shared > /dev/shm/f")
	p.wantRun("shared", "cat /dev/shm/f")
}

// An image as a volume (KEP-4639): the test's own.
func imageVolume(p *Pod) {
	volume := func(sub string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: c.Image.Image}, ImageSubPath: sub, Readonly: true}}
		}
	}
	p.wantRun("root", "cut -d: -f1 /image/etc/passwd | head -1", volume(""))
	p.wantRun("executed", "/image/bin/busybox echo executed", volume(""))
	p.wantRun("read-only", "touch /image/f 2>/dev/null || echo read-only", volume(""))
	p.wantRun("root", "cut -d: -f1 /image/passwd | head -1", volume("etc"))
	if !p.Foreign { // a single file is beyond the KEP
		p.wantRun("root", "cut -d: -f1 /image | head -1", volume("etc/passwd"))
	}
	st := p.status(p.create("true", volume("")))
	if m := st.GetMounts(); len(m) != 1 || !p.Foreign && m[0].GetImage().GetImageRef() != st.GetImageId() {
		p.Errorf("a container of the image %s has the mounts %v", st.GetImageId(), m)
	}
	_, err := p.Runtime.CreateContainer(p.Ctx, p.ID(), p.container("true", volume("no/such")), p.Config)
	if err == nil || !strings.Contains(err.Error(), "no/such") {
		p.Errorf("a path that the image hasn't: %v", err)
	}
}

func readonlyRoot(p *Pod) {
	p.wantRun("", "cat /etc/passwd", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.MaskedPaths = []string{"/etc/passwd"} }))
	p.wantRun("no", "touch /f 2>/dev/null || echo no", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.ReadonlyRootfs = true }))
	p.run("touch /f")
	p.wantRun("absent", "test -e /f || echo absent") // each container has a root of its own
}

func userAndGroups(p *Pod) {
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	edit := secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = id(1234), id(55), []int64{66, 77}
	})
	p.wantRun("1234 55 55 66 77", "echo $(id -u) $(id -g) $(id -G)", edit)
	u := p.status(p.create("true", edit)).GetUser().GetLinux()
	if u.GetUid() != 1234 || u.GetGid() != 55 || fmt.Sprint(u.GetSupplementalGroups()) != "[55 66 77]" {
		p.Errorf("the status tells of user %v", u)
	}
}

func capabilities(p *Pod) {
	const show = "grep CapEff /proc/self/status | cut -f2"
	with := func(c *runtimeapi.Capability) func(*runtimeapi.ContainerConfig) {
		return secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Capabilities = c })
	}
	p.wantRun("00000000a80425fb", show)
	p.wantRun("0000000000000000", show, with(&runtimeapi.Capability{DropCapabilities: []string{"ALL"}}))
	p.wantRun("0000000000000400", show, with(&runtimeapi.Capability{AddCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"ALL"}}))
	p.wantRun("00000000a80435fb", show, with(&runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}))
}

func seccompProfile(p *Pod) {
	const show = "grep Seccomp: /proc/self/status | cut -f2"
	p.wantRun("2", show)
	p.wantRun("0", show, secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}))
	profile := filepath.Join(p.TempDir(), "profile.json")
	p.must(os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o644))
	p.wantRun("refused", "mkdir /x 2>/dev/null || echo refused", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
	}))
}

func noNewPrivileges(p *Pod) {
	p.wantRun("1", "grep NoNewPrivs /proc/self/status | cut -f2", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.NoNewPrivs = true }))
	p.wantRun("0", "grep NoNewPrivs /proc/self/status | cut -f2")
	// Which paths are masked the caller says, as the node does; without, the
	// embedded runtime masks the usual ones.
	mask := secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		if p.Foreign {
			s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/keys"}, []string{"/proc/sys"}
		}
	})
	p.run("! head -c 1 /proc/keys | grep -q .", mask)
	p.wantRun("readonly", "echo 1 2>/dev/null > /proc/sys/kernel/panic || echo readonly", mask)
}

func privileged(p *Pod) {
	p.Config.Linux.SecurityContext.Privileged = true
	edit := secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Privileged = true
		s.Seccomp = nil
	})
	out := strings.Fields(p.run("mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l", edit))
	if len(out) != 2 || out[0] != "mounted" {
		p.Errorf("privileged container wrote %q", out)
	}
}

func sysctls(p *Pod) {
	p.Config.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"}
	p.wantRun("80\n1", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced")
	bad := newPod(p.T, p.Env)
	bad.Config.Linux.Sysctls = map[string]string{"kernel.panic": "1"}
	if _, err := p.Runtime.RunPodSandbox(p.Ctx, bad.Config, p.Handler); err == nil {
		p.Error("a sysctl of the host's was set")
	}
}

func namespaceLinks(kinds ...string) string {
	return "for k in " + strings.Join(kinds, " ") + "; do readlink /proc/self/ns/$k; done"
}

func hostLinks(p *Pod, kinds ...string) string {
	p.Helper()
	var out []string
	for _, k := range kinds {
		l, err := os.Readlink("/proc/self/ns/" + k)
		p.must(err)
		out = append(out, l)
	}
	return strings.Join(out, "\n")
}

func sharedNamespaces(p *Pod) {
	shared := p.run(namespaceLinks("net", "ipc", "uts"))
	if again := p.run(namespaceLinks("net", "ipc", "uts")); again != shared {
		p.Errorf("two containers of a pod are in %q and %q", shared, again)
	}
	for _, k := range strings.Fields(hostLinks(p, "net", "ipc", "uts")) {
		if strings.Contains(shared, k) {
			p.Errorf("the container is in the host's %s", k)
		}
	}
	p.wantRun("1", "echo $$") // the first process of a namespace of its own
}

func sharedPID(p *Pod) {
	if !p.SharedPID {
		return
	}
	p.options().Pid = runtimeapi.NamespaceMode_POD
	first := p.start("exec sleep 1000")
	out := p.run("ps -o args; readlink /proc/self/ns/pid; echo own $$")
	if !strings.Contains(out, "sleep 1000") || strings.Contains(out, "own 1\n") {
		p.Errorf("a container of a shared PID namespace sees %q", out)
	}
	// The namespace outlasts the end of any container.
	p.must(p.Runtime.StopContainer(p.Ctx, first, 0))
	p.run("true")
}

func hostNamespaces(p *Pod) {
	*p.options() = runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE,
	}
	p.Config.Hostname = "" // that is the host's, too
	p.wantRun(hostLinks(p, "net", "pid", "ipc"), namespaceLinks("net", "pid", "ipc"))
	if ip := p.sandbox().GetNetwork().GetIp(); ip != "" {
		p.Errorf("a pod in the host's network has the address %s of its own", ip)
	}
}

func podNetwork(p *Pod) {
	ip := p.sandbox().GetNetwork().GetIp()
	server := p.start("echo up; while :; do echo hi | nc -l -p 8080; done")
	p.ready(server)
	// A listener in a shell's loop isn't there all the time.
	p.wantRun("hi", "for i in $(seq 50); do nc 127.0.0.1 8080 2>/dev/null && exit; done; exit 1")
	other := newPod(p.T, p.Env)
	other.wantRun("hi", "for i in $(seq 50); do nc "+ip+" 8080 2>/dev/null && exit; usleep 20000; done; exit 1")
	if other.sandbox().GetNetwork().GetIp() == ip {
		p.Errorf("two pods have the address %s", ip)
	}
}

func hostPort(p *Pod) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	port := int32(l.Addr().(*net.TCPAddr).Port)
	p.must(l.Close())
	p.Config.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 80, HostPort: port}}
	p.start("while :; do echo hi | nc -l -p 80; done")
	host := newPod(p.T, p.Env)
	host.wantRun("hi", fmt.Sprintf("gw=$(ip route | awk '/default/{print $3}'); for i in $(seq 50); do nc $gw %d 2>/dev/null && exit; usleep 20000; done; exit 1", port))
}
