package crispec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUserNamespace(t *testing.T) {
	ids := []*runtimeapi.IDMapping{{HostId: 65536, Length: 65536}}
	users := &runtimeapi.UserNamespace{Uids: ids, Gids: ids}
	n, pod := testNode(t), testPod()
	sandbox, err := n.Sandbox(pod, 0, users)
	if err != nil {
		t.Fatal(err)
	}
	container, err := n.Container(Run{
		Pod: pod, Container: &pod.Spec.Containers[0], User: ImageUser{UID: new(int64)}, Users: users, Mounts: []*runtimeapi.Mount{{ContainerPath: "/a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]*runtimeapi.NamespaceOption{
		"sandbox": sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions(), "container": container.GetLinux().GetSecurityContext().GetNamespaceOptions(),
	} {
		if diff := cmp.Diff(users, got.GetUsernsOptions(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	want := []*runtimeapi.Mount{{ContainerPath: "/a", UidMappings: ids, GidMappings: ids}}
	if diff := cmp.Diff(want, container.GetMounts(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
