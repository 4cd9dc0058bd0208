//go:build node

package critest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/slowness"
)

// Env is what the suite runs against.
type Env struct {
	Runtime internalapi.RuntimeService
	// Image is busybox's name, present in the runtime's store.
	Image string
	// CgroupParent is a cgroup below which pods' cgroups may be made.
	CgroupParent string
	// LogDir is a directory for pods' logs.
	LogDir string
	// SharedPID says that pods can share a PID namespace.
	SharedPID bool
	// Handler is the runtime handler to use, "" for the default one.
	Handler string
	// Foreign says that the runtime isn't errand's own: what that does beyond
	// what the node relies on is not asked of it. Each such place says what.
	Foreign bool
	// CRIO says that the runtime answers as CRI-O does; it is Foreign, too. Each
	// place where CRI-O has its own way says which.
	CRIO bool
}

// patience is how long anything may take before a test gives up on it.
var patience = slowness.Times(time.Minute)

// Run runs the suite.
func Run(t *testing.T, env Env) {
	for _, c := range []struct {
		name string
		test func(*Pod)
	}{
		{"Lifecycle", lifecycle},
		{"ExitReasons", exitReasons},
		{"StartError", startError},
		{"StopGraceful", stopGraceful},
		{"StopKills", stopKills},
		{"StopSandboxKills", stopSandboxKills},
		{"RemoveKills", removeKills},
		{"Idempotence", idempotence},
		{"NotFound", notFound},
		{"Preconditions", preconditions},
		{"DuplicateNames", duplicateNames},
		{"Filters", filters},
		{"Events", events},
		{"Identity", identity},
		{"Environment", environment},
		{"Files", files},
		{"Mounts", mounts},
		{"ImageVolume", imageVolume},
		{"ReadonlyRoot", readonlyRoot},
		{"User", userAndGroups},
		{"Capabilities", capabilities},
		{"Seccomp", seccompProfile},
		{"NoNewPrivileges", noNewPrivileges},
		{"Privileged", privileged},
		{"Sysctls", sysctls},
		{"SharedNamespaces", sharedNamespaces},
		{"SharedPID", sharedPID},
		{"HostNamespaces", hostNamespaces},
		{"UserNamespace", userNamespace},
		{"UserNamespaceSharedPID", userNamespaceSharedPID},
		{"UserNamespaceMounts", userNamespaceMounts},
		{"UserNamespaceRefused", userNamespaceRefused},
		{"Network", podNetwork},
		{"HostPort", hostPort},
		{"Limits", limits},
		{"OOM", outOfMemory},
		{"UpdateResources", updateResources},
		{"Stats", stats},
		{"ExecSync", execSync},
		{"ExecTimeout", execTimeout},
		{"LogReopen", logReopen},
		{"Streams", streams},
		{"Information", information},
		{"Unsupported", unsupported},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newPod(t, env)) })
	}
}

// Pod is a sandbox for one test, made when it is first asked for.
type Pod struct {
	*testing.T
	Env
	Ctx    context.Context
	Config *runtimeapi.PodSandboxConfig
	id     string
	serial int
}

var serial atomic.Int64

func newPod(t *testing.T, env Env) *Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	uid := "uid-" + time.Now().Format("150405.000000") + "-" + string(rune('a'+serial.Add(1)%26))
	name := strings.ToLower(filepath.Base(t.Name()))
	p := &Pod{T: t, Env: env, Ctx: ctx, Config: &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "critest", Uid: uid},
		Hostname:     name,
		LogDirectory: filepath.Join(env.LogDir, uid),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"a.test", "b.test"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{"test": uid},
		Annotations:  map[string]string{"note": "kept"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: filepath.Join(env.CgroupParent, uid),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}}
	p.must(os.MkdirAll(p.Config.LogDirectory, 0o755))
	t.Cleanup(func() {
		defer cancel()
		if p.id != "" {
			p.must(env.Runtime.StopPodSandbox(ctx, p.id))
			p.must(env.Runtime.RemovePodSandbox(ctx, p.id))
		}
	})
	return p
}

func (p *Pod) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *Pod) options() *runtimeapi.NamespaceOption {
	return p.Config.Linux.SecurityContext.NamespaceOptions
}

// ID runs the sandbox if need be.
func (p *Pod) ID() string {
	p.Helper()
	if p.id == "" {
		id, err := p.Runtime.RunPodSandbox(p.Ctx, p.Config, p.Handler)
		p.must(err)
		p.id = id
	}
	return p.id
}

func (p *Pod) sandbox() *runtimeapi.PodSandboxStatus {
	p.Helper()
	resp, err := p.Runtime.PodSandboxStatus(p.Ctx, p.ID(), false)
	p.must(err)
	return resp.GetStatus()
}

// container is a configuration that runs a shell script.
func (p *Pod) container(script string, edits ...func(*runtimeapi.ContainerConfig)) *runtimeapi.ContainerConfig {
	p.serial++
	name := "c" + string(rune('a'+p.serial))
	c := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: p.Image},
		Command:  []string{"sh", "-c", script},
		LogPath:  name + ".log",
		Labels:   map[string]string{"name": name},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.options(), Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, e := range edits {
		e(c)
	}
	return c
}

func (p *Pod) create(script string, edits ...func(*runtimeapi.ContainerConfig)) string {
	p.Helper()
	sandbox := p.ID()
	id, err := p.Runtime.CreateContainer(p.Ctx, sandbox, p.container(script, edits...), p.Config)
	p.must(err)
	return id
}

func (p *Pod) start(script string, edits ...func(*runtimeapi.ContainerConfig)) string {
	p.Helper()
	id := p.create(script, edits...)
	p.must(p.Runtime.StartContainer(p.Ctx, id))
	return id
}

func (p *Pod) status(id string) *runtimeapi.ContainerStatus {
	p.Helper()
	resp, err := p.Runtime.ContainerStatus(p.Ctx, id, false)
	p.must(err)
	return resp.GetStatus()
}

// wait waits for a container's end.
func (p *Pod) wait(id string) *runtimeapi.ContainerStatus {
	p.Helper()
	return p.waitUntil(id, func(st *runtimeapi.ContainerStatus) bool {
		return st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED
	})
}

// waitUntil waits, from event to event, until a container's status is as wanted.
func (p *Pod) waitUntil(id string, ok func(*runtimeapi.ContainerStatus) bool) *runtimeapi.ContainerStatus {
	p.Helper()
	ctx, cancel := context.WithCancel(p.Ctx)
	events, subscribed, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- p.Runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) })
	}()
	defer func() { cancel(); <-ended }()
	<-subscribed
	for {
		if st := p.status(id); ok(st) {
			return st
		}
		select {
		case <-events:
		case <-p.Ctx.Done():
			p.Fatalf("container %s stays as it is: %v", id, p.status(id))
		}
	}
}

// run runs a script to its end, which must be a success, and returns its output.
func (p *Pod) run(script string, edits ...func(*runtimeapi.ContainerConfig)) string {
	p.Helper()
	id := p.start(script, edits...)
	st := p.wait(id)
	out := p.log(st)
	if st.GetExitCode() != 0 {
		p.Fatalf("%q ended with %d %s: %s", script, st.GetExitCode(), st.GetMessage(), out)
	}
	return out
}

// log is what a container wrote, both streams, without the CRI's framing.
func (p *Pod) log(st *runtimeapi.ContainerStatus) string {
	p.Helper()
	b, err := os.ReadFile(st.GetLogPath())
	p.must(err)
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) != 4 {
			p.Fatalf("malformed line in the log: %q", line)
		}
		out.WriteString(parts[3])
	}
	return out.String()
}

func (p *Pod) wantRun(want, script string, edits ...func(*runtimeapi.ContainerConfig)) {
	p.Helper()
	if got := strings.TrimSpace(p.run(script, edits...)); got != want {
		p.Errorf("%q wrote %q, want %q", script, got, want)
	}
}

// secure edits a container's security context.
func secure(f func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { f(c.Linux.SecurityContext) }
}
