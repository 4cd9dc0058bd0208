package spec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fixture is an ordinary container on an ordinary host, to be changed by tests.
type fixture struct{ Input }

func makeInput(t *testing.T) *fixture {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nwheel:x:10:root,alice\nstaff:x:50:alice\nalice:x:1000:\n")
	return &fixture{Input{
		ID: "c1", SandboxID: "s1", Root: root, CgroupsPath: "/errand/pod/c1",
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Command: []string{"true"},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{},
			},
		},
		Sandbox:    &runtimeapi.PodSandboxConfig{Hostname: "pod", Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod"}},
		Namespaces: Namespaces{Net: "/run/n", IPC: "/run/i", UTS: "/run/u"},
		Host:       &Host{Capabilities: append(slices.Clone(defaultCapabilities[:]), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"), MinOOMScoreAdj: 100},
	}}
}

func (f *fixture) security() *runtimeapi.LinuxContainerSecurityContext {
	return f.Config.Linux.SecurityContext
}

func (f *fixture) build(t *testing.T) *specs.Spec {
	t.Helper()
	s, err := Build(context.Background(), f.Input)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fixture) wantInvalid(t *testing.T, text string) {
	t.Helper()
	_, err := Build(context.Background(), f.Input)
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an ErrInvalid with %q", err, text)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestArguments(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}}
	for _, tc := range []struct {
		name          string
		command, args []string
		image         ocispec.ImageConfig
		want          []string
	}{
		{"the image's", nil, nil, image, []string{"/entry", "serve"}},
		{"args replace cmd", nil, []string{"x"}, image, []string{"/entry", "x"}},
		{"command drops cmd", []string{"sh"}, nil, image, []string{"sh"}},
		{"both", []string{"sh"}, []string{"-c"}, image, []string{"sh", "-c"}},
		{"only cmd", nil, nil, ocispec.ImageConfig{Cmd: []string{"sh"}}, []string{"sh"}},
	} {
		got, err := arguments(&runtimeapi.ContainerConfig{Command: tc.command, Args: tc.args}, tc.image)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, %v", tc.name, got, err)
		}
	}
	f := makeInput(t)
	f.Config.Command = nil
	f.wantInvalid(t, "no command specified")
}

func TestEnvironmentIsOverlaid(t *testing.T) {
	f := makeInput(t)
	f.Image.Env = []string{"PATH=/image", "A=1", "B=x=y"}
	f.Config.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("2")}, {Key: "C", Value: nil}}
	want := []string{"PATH=/image", "HOSTNAME=pod", "A=2", "B=x=y", "C="}
	if diff := cmp.Diff(want, f.build(t).Process.Env); diff != "" {
		t.Error(diff)
	}
}

func TestUser(t *testing.T) {
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	for _, tc := range []struct {
		name     string
		security *runtimeapi.LinuxContainerSecurityContext
		image    string
		want     specs.User
	}{
		{"default", &runtimeapi.LinuxContainerSecurityContext{}, "", specs.User{AdditionalGids: []uint32{0, 10}}},
		{"the image's by name", &runtimeapi.LinuxContainerSecurityContext{}, "alice",
			specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 10, 50}}},
		{"the image's with a group", &runtimeapi.LinuxContainerSecurityContext{}, "alice:staff",
			specs.User{UID: 1000, GID: 50, AdditionalGids: []uint32{10, 50}}},
		{"by number", &runtimeapi.LinuxContainerSecurityContext{RunAsUser: id(1000)}, "root",
			specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 10, 50}}},
		{"unknown number with a group", &runtimeapi.LinuxContainerSecurityContext{RunAsUser: id(7), RunAsGroup: id(8)}, "",
			specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{8}}},
		{"supplemental groups", &runtimeapi.LinuxContainerSecurityContext{RunAsUser: id(7), SupplementalGroups: []int64{9, 9}}, "",
			specs.User{UID: 7, AdditionalGids: []uint32{0, 9}}},
		{"strict policy", &runtimeapi.LinuxContainerSecurityContext{
			RunAsUser: id(1000), SupplementalGroups: []int64{9}, SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict}, "",
			specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 9}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := makeInput(t)
			f.Config.Linux.SecurityContext, f.Image.User = tc.security, tc.image
			if diff := cmp.Diff(tc.want, f.build(t).Process.User); diff != "" {
				t.Error(diff)
			}
		})
	}
	f := makeInput(t)
	f.security().RunAsGroup = id(5)
	f.wantInvalid(t, "group is specified without user")
	f = makeInput(t)
	f.Image.User = "nobody-here"
	f.wantInvalid(t, "nobody-here")
}

// A link out of the root filesystem must not lead to the host's accounts.
func TestUserIsResolvedInsideOfTheRoot(t *testing.T) {
	f := makeInput(t)
	passwd := filepath.Join(f.Root, "etc/passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "passwd")
	write(t, outside, "mallory:x:0:0::/:/bin/sh\n")
	if err := os.Symlink(outside, passwd); err != nil {
		t.Fatal(err)
	}
	f.Image.User = "mallory"
	f.wantInvalid(t, "mallory")
}

func TestCapabilities(t *testing.T) {
	for _, tc := range []struct {
		name      string
		add, drop []string
		has, not  string
		count     int
	}{
		{"default", nil, nil, "CAP_CHOWN", "CAP_NET_ADMIN", 14},
		{"add without prefix", []string{"net_admin"}, nil, "CAP_NET_ADMIN", "CAP_SYS_ADMIN", 15},
		{"drop", nil, []string{"CHOWN"}, "CAP_KILL", "CAP_CHOWN", 13},
		{"drop all", nil, []string{"ALL"}, "", "CAP_CHOWN", 0},
		{"drop all but one", []string{"CHOWN"}, []string{"all"}, "CAP_CHOWN", "CAP_KILL", 1},
		{"add all but one", []string{"ALL"}, []string{"SYS_ADMIN"}, "CAP_NET_ADMIN", "CAP_SYS_ADMIN", 15},
		{"drop what doesn't exist", nil, []string{"NET_ADMINN"}, "CAP_CHOWN", "CAP_NET_ADMINN", 14},
		{"what this process lacks", []string{"SYS_BOOT"}, nil, "CAP_CHOWN", "CAP_SYS_BOOT", 14},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := makeInput(t)
			f.security().Capabilities = &runtimeapi.Capability{AddCapabilities: tc.add, DropCapabilities: tc.drop}
			got := f.build(t).Process.Capabilities.Bounding
			if len(got) != tc.count || tc.has != "" && !slices.Contains(got, tc.has) || slices.Contains(got, tc.not) {
				t.Errorf("got %v", got)
			}
		})
	}
	for _, name := range []string{"NET_ADMINN", "CAP_", ""} {
		f := makeInput(t)
		f.security().Capabilities = &runtimeapi.Capability{AddCapabilities: []string{name}}
		f.wantInvalid(t, `unknown capability "`+capName(name)+`"`)
	}
}

func TestConfinement(t *testing.T) {
	f := makeInput(t)
	f.security().Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	f.security().NoNewPrivs = true
	s := f.build(t)
	if s.Linux.Seccomp == nil || slices.Contains(s.Linux.Seccomp.Architectures, specs.ArchX32) {
		t.Errorf("seccomp %+v", s.Linux.Seccomp)
	}
	if !s.Process.NoNewPrivileges || !slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("confinement is missing")
	}
	f.security().MaskedPaths, f.security().ReadonlyPaths = []string{}, []string{}
	if s = f.build(t); len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) != 0 {
		t.Error("procMount Unmasked is masked")
	}
	f.security().Privileged = true
	if s = f.build(t); s.Linux.Seccomp != nil || !s.Linux.Resources.Devices[0].Allow {
		t.Error("a privileged container is confined")
	}
	f = makeInput(t)
	f.security().Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/nonexistent.json"}
	f.wantInvalid(t, "/nonexistent.json")
	f = makeInput(t)
	f.security().Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "x"}
	f.wantInvalid(t, "no AppArmor")
}

func TestAppArmor(t *testing.T) {
	profile := func(p runtimeapi.SecurityProfile_ProfileType, ref string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: p, LocalhostRef: ref}
	}
	for name, tc := range map[string]struct {
		asked      *runtimeapi.SecurityProfile
		privileged bool
		want       string
	}{
		"nothing":                     {nil, false, "errand-default"},
		"runtime default":             {profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), false, "errand-default"},
		"unconfined":                  {profile(runtimeapi.SecurityProfile_Unconfined, ""), false, ""},
		"localhost":                   {profile(runtimeapi.SecurityProfile_Localhost, "localhost/own"), false, "own"},
		"privileged":                  {nil, true, ""},
		"privileged, runtime default": {profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), true, ""},
		"privileged, localhost":       {profile(runtimeapi.SecurityProfile_Localhost, "own"), true, "own"},
	} {
		f := makeInput(t)
		loaded := ""
		f.Host.AppArmor, f.Host.LoadProfile = true, func(name string) error { loaded = name; return nil }
		f.security().Apparmor, f.security().Privileged = tc.asked, tc.privileged
		if got := f.build(t).Process.ApparmorProfile; got != tc.want || got == "errand-default" && loaded != got {
			t.Errorf("%s: got %q (loaded %q), want %q", name, got, loaded, tc.want)
		}
		f.Host.AppArmor = false
		if tc.want != "own" && f.build(t).Process.ApparmorProfile != "" {
			t.Errorf("%s: a profile on a host without AppArmor", name)
		}
	}
	f := makeInput(t)
	f.Host.AppArmor, f.Host.LoadProfile = true, func(string) error { return errors.New("no parser") }
	if _, err := Build(t.Context(), f.Input); err == nil || !strings.Contains(err.Error(), "no parser") {
		t.Errorf("a container that can't be confined: %v", err)
	}
}

func TestSELinuxLabelsAreNotIgnored(t *testing.T) {
	f := makeInput(t)
	f.security().SelinuxOptions = &runtimeapi.SELinuxOption{Level: "s0:c1,c2"}
	f.build(t) // the host has no SELinux
	f.Host.SELinux = true
	f.wantInvalid(t, "seLinuxOptions")
}

func TestArchitectures(t *testing.T) {
	all := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	if got := architectures(all, true); !slices.Equal(got, all[:2]) {
		t.Errorf("got %v", got)
	}
	if got := architectures(all, false); !slices.Equal(got, all[:1]) {
		t.Errorf("got %v", got)
	}
}

func TestNamespaces(t *testing.T) {
	kinds := func(s *specs.Spec) string {
		var out []string
		for _, n := range s.Linux.Namespaces {
			out = append(out, string(n.Type)+"="+n.Path)
		}
		return strings.Join(out, " ")
	}
	f := makeInput(t)
	if got := kinds(f.build(t)); got != "mount= network=/run/n ipc=/run/i uts=/run/u pid=" {
		t.Error(got)
	}
	f.Namespaces = Namespaces{HostPID: true}
	f.Host.CgroupV2 = true
	if got := kinds(f.build(t)); got != "mount= cgroup=" {
		t.Error(got)
	}
	f.Namespaces = Namespaces{PID: "/run/p"}
	f.Host.CgroupV2 = false
	if got := kinds(f.build(t)); got != "mount= pid=/run/p" {
		t.Error(got)
	}
}

func TestResources(t *testing.T) {
	r := &runtimeapi.LinuxContainerResources{
		CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, CpusetCpus: "0-1", MemoryLimitInBytes: 1 << 20,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4}, {PageSize: "1GB", Limit: 0}},
	}
	got := Resources(r, &Host{SwapAccounting: true, Hugepages: []string{"2MB"}})
	if *got.CPU.Shares != 512 || *got.CPU.Quota != 50000 || *got.CPU.Period != 100000 || got.CPU.Cpus != "0-1" {
		t.Errorf("cpu %+v", got.CPU)
	}
	if *got.Memory.Limit != 1<<20 || *got.Memory.Swap != 1<<20 {
		t.Errorf("memory %+v", got.Memory)
	}
	if len(got.HugepageLimits) != 1 || got.HugepageLimits[0].Pagesize != "2MB" {
		t.Errorf("huge pages %+v", got.HugepageLimits)
	}
	if got = Resources(r, &Host{}); got.Memory.Swap != nil {
		t.Error("swap is limited on a host that can't")
	}
}

func TestOOMScoreIsClamped(t *testing.T) {
	f := makeInput(t)
	f.Config.Linux.Resources.OomScoreAdj = -997
	if got := *f.build(t).Process.OOMScoreAdj; got != 100 {
		t.Errorf("got %d, want the host's lowest", got)
	}
	f.Config.Linux.Resources.OomScoreAdj = 1000
	if got := *f.build(t).Process.OOMScoreAdj; got != 1000 {
		t.Errorf("got %d", got)
	}
}

func TestMounts(t *testing.T) {
	f := makeInput(t)
	f.Files = Files{Hosts: "/s/hosts", ResolvConf: "/s/resolv.conf", Shm: "/s/shm"}
	dir := t.TempDir()
	link, missing := filepath.Join(dir, "link"), filepath.Join(dir, "new")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	f.Config.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/a/b", HostPath: link, Readonly: true},
		{ContainerPath: "/a/", HostPath: missing},
		{ContainerPath: "/etc/hosts", HostPath: filepath.Join(f.Root, "etc/passwd"), Readonly: true, RecursiveReadOnly: true},
	}
	s := f.build(t)
	at := map[string]int{}
	for i, m := range s.Mounts {
		if _, ok := at[m.Destination]; ok {
			t.Errorf("two mounts at %s", m.Destination)
		}
		at[m.Destination] = i
	}
	if m := s.Mounts[at["/a/b"]]; m.Source != dir || !slices.Contains(m.Options, "ro") || at["/a"] > at["/a/b"] {
		t.Errorf("/a/b: %+v at %d, /a at %d", m, at["/a/b"], at["/a"])
	}
	if m := s.Mounts[at["/etc/hosts"]]; m.Source == "/s/hosts" || !slices.Contains(m.Options, "rro") {
		t.Errorf("/etc/hosts: %+v", m)
	}
	if m := s.Mounts[at["/dev/shm"]]; m.Source != "/s/shm" {
		t.Errorf("/dev/shm: %+v", m)
	}
	if _, err := os.Stat(missing); err != nil {
		t.Errorf("a missing host path wasn't made: %v", err)
	}
	for text, m := range map[string]*runtimeapi.Mount{
		"both an image":              {ContainerPath: "/x", Image: &runtimeapi.ImageSpec{Image: "i"}, HostPath: dir},
		"an image volume":            {ContainerPath: "/x", Image: &runtimeapi.ImageSpec{Image: "i"}, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		"not absolute":               {ContainerPath: "x", HostPath: dir},
		"recursively read-only":      {ContainerPath: "/x", HostPath: dir, RecursiveReadOnly: true},
		"the pod has no user":        {ContainerPath: "/x", HostPath: dir, UidMappings: []*runtimeapi.IDMapping{{}}},
		"the host path \"relative\"": {ContainerPath: "/x", HostPath: "relative"},
	} {
		f.Config.Mounts = []*runtimeapi.Mount{m}
		f.ImageVolumes = map[int]string{0: dir}
		f.wantInvalid(t, text)
	}
}

func TestStopSignal(t *testing.T) {
	for _, tc := range []struct {
		config runtimeapi.Signal
		image  string
		want   syscall.Signal
	}{
		{0, "", syscall.SIGTERM},
		{0, "SIGQUIT", syscall.SIGQUIT},
		{0, "3", syscall.SIGQUIT},
		{0, "rtmin+3", 37},
		{runtimeapi.Signal_SIGNAL_SIGINT, "SIGQUIT", syscall.SIGINT},
		{runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3, "", 37},
		{runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS2, "", 62},
	} {
		got, err := StopSignal(&runtimeapi.ContainerConfig{StopSignal: tc.config}, ocispec.ImageConfig{StopSignal: tc.image})
		if err != nil || got != tc.want {
			t.Errorf("%v %q: got %v, %v, want %v", tc.config, tc.image, got, err, tc.want)
		}
	}
	for n := range runtimeapi.Signal_name {
		if _, err := StopSignal(&runtimeapi.ContainerConfig{StopSignal: runtimeapi.Signal(n)}, ocispec.ImageConfig{}); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"SIGNOSUCH", "0", "65", "RTMIN-1", "RTMAX+x"} {
		if _, err := ParseSignal(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestReadHost(t *testing.T) {
	if _, err := ReadHost("/sys/fs/cgroup", false); err != nil {
		t.Error(err)
	}
	for kb, want := range map[int]string{2048: "2MB", 1 << 20: "1GB", 64: "64KB"} {
		if got := pageSize(kb); got != want {
			t.Errorf("%d kB: %s, want %s", kb, got, want)
		}
	}
}

func TestRuns32(t *testing.T) {
	elf := func(class byte) string { return "\x7fELF" + string(class) + "rest" }
	env := []string{"PATH=/usr/bin:/bin"}
	for _, tc := range []struct {
		name    string
		files   map[string]string
		links   map[string]string
		command string
		want    bool
	}{
		{"64-bit by path", map[string]string{"bin/prog": elf(2)}, nil, "/bin/prog", false},
		{"32-bit by path", map[string]string{"bin/prog": elf(1)}, nil, "/bin/prog", true},
		{"32-bit by name", map[string]string{"bin/prog": elf(1)}, nil, "prog", true},
		{"the first in PATH counts", map[string]string{"usr/bin/prog": elf(2), "bin/prog": elf(1)}, nil, "prog", false},
		{"an absolute link stays inside", map[string]string{"bin/busybox": elf(1)}, map[string]string{"bin/sh": "/bin/busybox"}, "sh", true},
		{"a loader", map[string]string{"lib/ld-linux.so.2": "", "bin/prog": elf(2)}, nil, "prog", true},
		{"a script", map[string]string{"bin/prog": "#!/bin/sh"}, nil, "prog", false},
		{"nothing", nil, nil, "prog", false},
	} {
		root := t.TempDir()
		for _, dir := range []string{"usr/bin", "bin", "lib"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, content := range tc.files {
			write(t, filepath.Join(root, name), content)
		}
		for name, target := range tc.links {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := runs32(root, []string{tc.command}, env); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

// An image volume is read-only, or refused; nobody says that it isn't to be executed.
func TestImageVolume(t *testing.T) {
	f := makeInput(t)
	f.Config.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/other", HostPath: t.TempDir()},
		{ContainerPath: "/x/../data/", Image: &runtimeapi.ImageSpec{Image: "i"}, Readonly: true},
	}
	f.ImageVolumes = map[int]string{1: "/host/image"}
	want := specs.Mount{Destination: "/data", Type: "bind", Source: "/host/image", Options: []string{"rbind", "rprivate", "ro"}}
	if got := f.build(t).Mounts; !slices.ContainsFunc(got, func(m specs.Mount) bool { return cmp.Equal(m, want) }) {
		t.Errorf("no %v in %v", want, got)
	}
	f.ImageVolumes = nil
	if _, err := Build(t.Context(), f.Input); err == nil || !strings.Contains(err.Error(), "isn't mounted") {
		t.Errorf("an image that nobody mounted: %v", err)
	}
	f.ImageVolumes = map[int]string{1: "/host/image"}
	f.Config.Mounts[1].Readonly = false
	if _, err := Build(t.Context(), f.Input); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "must be read-only") {
		t.Errorf("an image to be written: %v", err)
	}
}
