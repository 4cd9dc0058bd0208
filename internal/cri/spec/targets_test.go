package spec

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestTargets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	usual := []Target{{"/dev", false}, {"/etc/hostname", true}, {"/etc/hosts", true}, {"/etc/resolv.conf", true}, {"/proc", false}, {"/sys", false}}
	for name, tc := range map[string]struct {
		mounts []*runtimeapi.Mount
		want   []Target
	}{
		"no mounts of its own": {nil, usual},
		"directories and files": {
			[]*runtimeapi.Mount{{ContainerPath: "/work//x/", HostPath: dir}, {ContainerPath: "/work/config", HostPath: file}, {ContainerPath: "/work-new", HostPath: dir + "/missing"}},
			append(append([]Target{}, usual...), Target{"/work-new", false}, Target{"/work/config", true}, Target{"/work/x", false}),
		},
		"in other mounts": {
			[]*runtimeapi.Mount{{ContainerPath: "/dev/termination-log", HostPath: file}, {ContainerPath: "/etc/sub", HostPath: dir}, {ContainerPath: "/etc", HostPath: dir}, {ContainerPath: "/sys/fs/x", HostPath: dir}},
			[]Target{{"/dev", false}, {"/etc", false}, {"/proc", false}, {"/sys", false}},
		},
		"in place of the usual": {
			[]*runtimeapi.Mount{{ContainerPath: "/etc/hosts", HostPath: file}, {ContainerPath: "/etc/hostname", HostPath: dir}},
			[]Target{{"/dev", false}, {"/etc/hostname", false}, {"/etc/hosts", true}, {"/etc/resolv.conf", true}, {"/proc", false}, {"/sys", false}},
		},
		"twice": {
			[]*runtimeapi.Mount{{ContainerPath: "/a", HostPath: dir}, {ContainerPath: "/a", HostPath: dir}, {ContainerPath: "/", HostPath: dir}, {ContainerPath: "relative", HostPath: dir}},
			append([]Target{{"/a", false}}, usual...),
		},
		"images, and what can't be told": {
			[]*runtimeapi.Mount{
				{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: "x"}},
				{ContainerPath: "/part", Image: &runtimeapi.ImageSpec{Image: "x"}, ImageSubPath: "some/where"}, {ContainerPath: "/part/below", HostPath: dir},
				{ContainerPath: "/wrong", HostPath: file + "/below"},
			},
			append(append(append([]Target{}, usual[:4]...), Target{"/image", false}), usual[4:]...),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Targets(Input{
				Config: &runtimeapi.ContainerConfig{Mounts: tc.mounts},
				Files:  Files{Hosts: "/h", ResolvConf: "/r", Hostname: "/n", Shm: "/s"},
			})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
