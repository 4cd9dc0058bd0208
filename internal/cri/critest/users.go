//go:build node

package critest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostIDs are where the user namespaces of this suite's pods begin on the host.
const hostIDs = 7 << 16

// idsPerPod is how many IDs a pod has.
const idsPerPod = 1 << 16

func mappedFrom(first uint32) *runtimeapi.UserNamespace {
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: idsPerPod}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
}

// inUserNamespace gives the pod a user namespace.
func (p *Pod) inUserNamespace() {
	p.options().UsernsOptions = mappedFrom(hostIDs)
}

// mappedMount mounts as the kubelet does into a pod with a user namespace.
func (p *Pod) mappedMount(m *runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
	m.UidMappings, m.GidMappings = p.options().UsernsOptions.Uids, p.options().UsernsOptions.Gids
	return func(c *runtimeapi.ContainerConfig) { c.Mounts = append(c.Mounts, m) }
}

// pid is the container's first process, on the host.
func (p *Pod) pid(id string) int {
	p.Helper()
	resp, err := p.Runtime.ContainerStatus(p.Ctx, id, true)
	p.must(err)
	var info struct {
		Pid int `json:"pid"`
	}
	p.must(json.Unmarshal([]byte(resp.GetInfo()["info"]), &info))
	return info.Pid
}

// User namespaces (KEP-127): root in the pod is nobody on the host.
func userNamespace(p *Pod) {
	p.inUserNamespace()
	line := fmt.Sprintf("0 %d %d", hostIDs, idsPerPod)
	p.wantRun(line+"\n"+line, "for f in /proc/self/uid_map /proc/self/gid_map; do echo $(cat $f); done")
	if got := p.sandbox().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions(); !p.Foreign && got.GetUids()[0].GetHostId() != hostIDs {
		p.Errorf("the sandbox's status tells of %v", got)
	}

	user := secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = &runtimeapi.Int64Value{Value: 1000} })
	for _, c := range []struct {
		id   string
		host int
	}{{p.start("exec sleep 1000"), hostIDs}, {p.start("exec sleep 1000", user), hostIDs + 1000}} {
		pid := p.pid(c.id)
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
		p.must(err)
		if got := strings.Join(strings.Fields(string(b)), " "); got != line {
			p.Errorf("the host sees the mapping %q", got)
		}
		st, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		p.must(err)
		if owner := st.Sys().(*syscall.Stat_t); int(owner.Uid) != c.host {
			p.Errorf("on the host the process is of user %d, want %d", owner.Uid, c.host)
		}
		inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
		p.must(err)
		if inside == hostLinks(p, "user") {
			p.Error("the process is in the host's user namespace")
		}
		stdout, _, err := p.Runtime.ExecSync(p.Ctx, c.id, []string{"sh", "-c", "echo $(id -u) $(cat /proc/self/uid_map)"}, patience)
		p.must(err)
		if got, want := strings.TrimSpace(string(stdout)), fmt.Sprintf("%d %s", c.host-hostIDs, line); got != want {
			p.Errorf("a command in it: %q, want %q", got, want)
		}
	}

	// All that is there is root's, and root may do what root does.
	p.wantRun("0:0\n0:0\n0:0\n0:0\n0:0", "stat -c %u:%g / /bin/busybox /etc/hosts /etc/hostname /etc/resolv.conf")
	if !p.Foreign { // in containerd's it is nobody's
		p.wantRun("0:0", "stat -c %u:%g /dev/shm")
	}
	p.run("touch /bin/f && chown 1234:55 /bin/f /bin/busybox && [ $(stat -c %u:%g /bin/f) = 1234:55 ] && mkdir /etc/d && rm -r /etc/d && echo x > /dev/shm/f && echo y >> /etc/hosts")
	// The pod's other namespaces are its own, so that what it may do it may do there.
	p.run("hostname other && ip link set lo down && ip link set lo up", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN", "NET_ADMIN"}}
	}))
}

func userNamespaceSharedPID(p *Pod) {
	if !p.SharedPID {
		return
	}
	p.inUserNamespace()
	if !p.Foreign { // containerd's first process is of user 65535
		p.options().UsernsOptions.Uids[0].Length = 1000
	}
	p.options().Pid = runtimeapi.NamespaceMode_POD
	p.start("exec sleep 1000")
	if out := p.run("ps -o args; cat /proc/self/uid_map"); !strings.Contains(out, "sleep 1000") || !strings.Contains(out, fmt.Sprint(hostIDs)) {
		p.Errorf("a container of a shared PID namespace sees %q", out)
	}
}

// Files of mounts have the owners in the pod that they have on the host.
func userNamespaceMounts(p *Pod) {
	p.inUserNamespace()
	dir, secret := p.TempDir(), p.TempDir()
	p.must(os.Chmod(filepath.Dir(dir), 0o755))
	for owner, name := range map[int]string{0: "root", 1000: "user"} {
		file := filepath.Join(dir, name)
		p.must(os.WriteFile(file, nil, 0o600))
		p.must(os.Chown(file, owner, owner))
	}
	data := p.mappedMount(&runtimeapi.Mount{ContainerPath: "/data", HostPath: dir})
	p.wantRun("0:0\n1000:1000", "cd /data; stat -c %u:%g root user; echo x > root; touch new; chown 77:88 new", data)
	for name, want := range map[string]uint32{"root": 0, "user": 1000, "new": 77} {
		st, err := os.Stat(filepath.Join(dir, name))
		p.must(err)
		if got := st.Sys().(*syscall.Stat_t).Uid; got != want {
			p.Errorf("on the host %s is user %d's, want %d", name, got, want)
		}
	}
	p.wantRun("read-only", "touch /data/f 2>/dev/null || echo read-only", p.mappedMount(&runtimeapi.Mount{ContainerPath: "/data", HostPath: dir, Readonly: true}))
	one := p.mappedMount(&runtimeapi.Mount{ContainerPath: "/one", HostPath: filepath.Join(dir, "root")})
	p.wantRun("x", "cat /one", one)

	// What isn't mapped is nobody's, and closed to the pod's root.
	p.must(os.WriteFile(filepath.Join(secret, "f"), []byte("secret"), 0o600))
	p.wantRun("65534:65534\nclosed", "stat -c %u:%g /secret/f; cat /secret/f 2>/dev/null || echo closed", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/secret", HostPath: secret}}
	})
	p.wantRun("0:0\nexecuted", "stat -c %u:%g /image/bin/busybox; /image/bin/busybox echo executed", func(c *runtimeapi.ContainerConfig) {
		p.mappedMount(&runtimeapi.Mount{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: c.Image.Image}, Readonly: true})(c)
	})
}

func userNamespaceRefused(p *Pod) {
	two := []*runtimeapi.IDMapping{{HostId: hostIDs, Length: 10}, {HostId: hostIDs + 10, ContainerId: 10, Length: 10}}
	for name, options := range map[string]*runtimeapi.NamespaceOption{
		"no mapping":         {UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}},
		"two ranges":         {UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: two, Gids: two}},
		"one of a container": {UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_CONTAINER}},
		"the host's network": {UsernsOptions: mappedFrom(hostIDs), Network: runtimeapi.NamespaceMode_NODE},
	} {
		bad := newPod(p.T, p.Env)
		bad.Config.Linux.SecurityContext.NamespaceOptions = options
		if id, err := p.Runtime.RunPodSandbox(p.Ctx, bad.Config, p.Handler); err == nil {
			p.Errorf("%s: a sandbox was made", name)
			bad.id = id
		}
	}
	p.inUserNamespace()
	_, err := p.Runtime.CreateContainer(p.Ctx, p.ID(), p.container("true", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER, UsernsOptions: mappedFrom(hostIDs + idsPerPod)}
	})), p.Config)
	if err == nil {
		p.Error("a container was made with another user namespace than its sandbox's")
	}
	// proc's files can't be mapped.
	_, err = p.Runtime.CreateContainer(p.Ctx, p.ID(), p.container("true", p.mappedMount(&runtimeapi.Mount{ContainerPath: "/p", HostPath: "/proc"})), p.Config)
	if !p.Foreign && (err == nil || !strings.Contains(err.Error(), "mount at /p of a pod with a user namespace") || !strings.Contains(err.Error(), "on proc")) {
		p.Errorf("a mount that can't be mapped: %v", err)
	}
}
