package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeTree is a directory with the files that the kernel would make.
type fakeTree struct {
	t    *testing.T
	root string
}

func (f fakeTree) put(file, content string) {
	f.t.Helper()
	path := filepath.Join(f.root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f fakeTree) want(file, content string) {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.root, file))
	if err != nil || string(b) != content {
		f.t.Errorf("%s holds %q, %v, want %q", file, b, err, content)
	}
}

func makeV2(t *testing.T) (fakeTree, *Tree) {
	f := fakeTree{t, t.TempDir()}
	for _, dir := range []string{"", "errand/", "errand/pod/"} {
		f.put(dir+"cgroup.controllers", "cpu memory pids\n")
		f.put(dir+"cgroup.subtree_control", "")
		f.put(dir+"cgroup.procs", "")
	}
	f.put("cgroup.subtree_control", "memory\n")
	for _, file := range []string{"cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "cpuset.cpus", "cgroup.kill", "memory.high"} {
		f.put("errand/pod/"+file, "")
	}
	return f, open(t, f)
}

func makeV1(t *testing.T) (fakeTree, *Tree) {
	f := fakeTree{t, t.TempDir()}
	for _, h := range []string{"cpu", "memory", "freezer", "pids", "cpuacct"} {
		f.put(h+"/cgroup.procs", "")
		f.put(h+"/errand/pod/cgroup.procs", "")
	}
	f.put("cpu/errand/pod/cpu.shares", "1024")
	f.put("cpu/errand/pod/cpu.cfs_quota_us", "-1")
	f.put("cpu/errand/pod/cpu.cfs_period_us", "100000")
	f.put("memory/errand/pod/memory.limit_in_bytes", "9223372036854771712")
	return f, open(t, f)
}

func open(t *testing.T, f fakeTree) *Tree {
	t.Helper()
	tree, err := Open(f.root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

var limits = &runtimeapi.LinuxContainerResources{
	CpuShares: 1024, CpuQuota: 50_000, CpuPeriod: 100_000, MemoryLimitInBytes: 1 << 20,
}

func TestCreateV2(t *testing.T) {
	f, tree := makeV2(t)
	if !tree.V2() {
		t.Fatal("taken for version 1")
	}
	if err := tree.Create("/errand/pod", limits); err != nil {
		t.Fatal(err)
	}
	f.want("cgroup.subtree_control", "+cpu +pids") // a file of the kernel's would merge
	f.want("errand/cgroup.subtree_control", "+cpu +memory +pids")
	f.want("errand/pod/cgroup.subtree_control", "+cpu +memory +pids")
	f.want("errand/pod/cpu.weight", "100")
	f.want("errand/pod/cpu.max", "50000 100000")
	f.want("errand/pod/memory.max", "1048576")
}

func TestLimitPids(t *testing.T) {
	f, tree := makeV2(t)
	f.put("errand/pod/pids.max", "max")
	tree.LimitPids(100)
	if err := tree.Create("/errand/pod", limits); err != nil {
		t.Fatal(err)
	}
	f.want("errand/pod/pids.max", "100")

	f, tree = makeV1(t)
	f.put("pids/errand/pod/pids.max", "max")
	if err := tree.Create("/errand/pod", nil); err != nil {
		t.Fatal(err)
	}
	f.want("pids/errand/pod/pids.max", "max")
	tree.LimitPids(100)
	if err := tree.Create("/errand/pod", nil); err != nil {
		t.Fatal(err)
	}
	f.want("pids/errand/pod/pids.max", "100")
}

func TestUpdateV2(t *testing.T) {
	f, tree := makeV2(t)
	err := tree.Update("/errand/pod", &runtimeapi.LinuxContainerResources{
		CpuQuota: -1, MemoryLimitInBytes: 100, MemorySwapLimitInBytes: 150, CpusetCpus: "0", Unified: map[string]string{"memory.high": "90"},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.want("errand/pod/cpu.max", "max 100000")
	f.want("errand/pod/memory.swap.max", "50")
	f.want("errand/pod/cpuset.cpus", "0")
	f.want("errand/pod/memory.high", "90")
	for _, bad := range []string{"../../memory.max", "no.such.file"} {
		if err := tree.Update("/errand/pod", &runtimeapi.LinuxContainerResources{Unified: map[string]string{bad: "1"}}); err == nil {
			t.Errorf("%s was written", bad)
		}
	}
}

func TestCreateV1(t *testing.T) {
	f, tree := makeV1(t)
	if tree.V2() {
		t.Fatal("taken for version 2")
	}
	if err := tree.Create("/errand/pod", limits); err != nil {
		t.Fatal(err)
	}
	f.want("cpu/errand/pod/cpu.shares", "1024")
	f.want("cpu/errand/pod/cpu.cfs_quota_us", "50000")
	f.want("memory/errand/pod/memory.limit_in_bytes", "1048576")
	if err := tree.Update("/errand/pod", &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "1"}}); err == nil {
		t.Error("a limit of version 2 was accepted")
	}
}

// Where the kernel offers no limit on a size of huge pages there is none to set.
func TestHugePagesThatCantBeLimited(t *testing.T) {
	_, v1 := makeV1(t)
	f, v2 := makeV2(t)
	f.put("errand/pod/hugetlb.2MB.max", "max")
	for name, tree := range map[string]*Tree{"v1": v1, "v2": v2} {
		err := tree.Update("/errand/pod", &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{
			{PageSize: "1GB", Limit: 1 << 30}, {PageSize: "2MB", Limit: 2 << 20},
		}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.want("errand/pod/hugetlb.2MB.max", "2097152")
}

func TestPathsStayInside(t *testing.T) {
	_, tree := makeV2(t)
	for _, bad := range []string{"", "/", "relative", "/a/../..", "/a/"} {
		if tree.Create(bad, nil) == nil || tree.Remove(bad) == nil || tree.Kill(bad) == nil {
			t.Errorf("the path %q was accepted", bad)
		}
	}
}

func TestPodLimits(t *testing.T) {
	overhead := &runtimeapi.LinuxContainerResources{CpuShares: 100, CpuQuota: 10_000, CpuPeriod: 50_000, MemoryLimitInBytes: 5}
	got := PodLimits(limits, overhead)
	want := &runtimeapi.LinuxContainerResources{CpuShares: 1124, CpuQuota: 70_000, CpuPeriod: 100_000, MemoryLimitInBytes: 1<<20 + 5}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got := PodLimits(&runtimeapi.LinuxContainerResources{CpuShares: 2}, overhead); got.MemoryLimitInBytes != 0 || got.CpuQuota != 0 {
		t.Errorf("overhead alone became a limit: %v", got)
	}
	if PodLimits(nil, overhead) != nil {
		t.Error("overhead alone became a limit")
	}
}

func TestKillV2(t *testing.T) {
	f, tree := makeV2(t)
	if err := tree.Kill("/errand/pod"); err != nil {
		t.Fatal(err)
	}
	f.want("errand/pod/cgroup.kill", "1")
	if err := tree.Kill("/errand/gone"); err != nil {
		t.Errorf("a cgroup that's gone: %v", err)
	}
}

func TestStatsV2(t *testing.T) {
	f, tree := makeV2(t)
	f.put("errand/pod/cpu.stat", "usage_usec 5\nuser_usec 3\n")
	f.put("errand/pod/memory.current", "1000\n")
	f.put("errand/pod/memory.max", "max\n")
	f.put("errand/pod/memory.stat", "anon 300\ninactive_file 400\npgfault 7\npgmajfault 1\n")
	f.put("errand/pod/pids.current", "2\n")
	f.put("errand/pod/cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=3\n")
	got, err := tree.Stats("/errand/pod")
	if err != nil {
		t.Fatal(err)
	}
	want := &Stats{
		CPUNanos: 5000, MemoryUsage: 1000, WorkingSet: 600, RSS: 300, PageFaults: 7, MajorFaults: 1, Processes: 2,
		CPUPressure: &runtimeapi.PsiStats{
			Some: &runtimeapi.PsiData{Avg10: 1.5, Total: 12000}, Full: &runtimeapi.PsiData{Avg300: 0.25, Total: 3000},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if _, err := tree.Stats("/errand/gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a cgroup that's gone: %v", err)
	}
	f.put("errand/pod/memory.current", "nonsense")
	if _, err := tree.Stats("/errand/pod"); err == nil || !strings.Contains(err.Error(), "memory.current") {
		t.Errorf("nonsense was read as a number: %v", err)
	}
}

func TestStatsV1(t *testing.T) {
	f, tree := makeV1(t)
	f.put("cpuacct/errand/pod/cpuacct.usage", "77\n")
	f.put("memory/errand/pod/memory.usage_in_bytes", "1000\n")
	f.put("memory/errand/pod/memory.stat", "total_rss 300\ntotal_inactive_file 1400\ntotal_pgfault 7\n")
	got, err := tree.Stats("/errand/pod")
	if err != nil {
		t.Fatal(err)
	}
	want := &Stats{CPUNanos: 77, MemoryUsage: 1000, WorkingSet: 0, RSS: 300, PageFaults: 7}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestRemove(t *testing.T) {
	f := fakeTree{t, t.TempDir()}
	f.put("cgroup.controllers", "")
	tree := open(t, f)
	if err := os.MkdirAll(filepath.Join(f.root, "errand/pod/c1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if names, err := tree.Children("/errand"); err != nil || len(names) != 1 || names[0] != "pod" {
		t.Errorf("children %v, %v", names, err)
	}
	for range 2 {
		if err := tree.Remove("/errand/pod"); err != nil {
			t.Fatal(err)
		}
	}
	if tree.Exists("/errand/pod") || !tree.Exists("/errand") {
		t.Error("removed too little or too much")
	}
	// A plain file stands for a process: the kernel says EBUSY, a directory ENOTEMPTY.
	f.put("errand/pod/file", "")
	if err := tree.Remove("/errand/pod"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("got %v", err)
	}
}

// Only the cgroups below the root have the file, if the kernel accounts swap; in a
// container the root has it, too.
func TestLimitsSwap(t *testing.T) {
	f, tree := makeV2(t)
	if tree.LimitsSwap() {
		t.Error("by no file")
	}
	f.put("system.slice/memory.swap.max", "max")
	if !tree.LimitsSwap() {
		t.Error("not by a cgroup's file")
	}
	f, tree = makeV2(t)
	f.put("memory.swap.max", "max")
	if !tree.LimitsSwap() {
		t.Error("not by the root's file")
	}
	if _, tree = makeV1(t); tree.LimitsSwap() {
		t.Error("on version 1")
	}
}
