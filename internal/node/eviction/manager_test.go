package eviction

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/runtimepod"
)

// world is a machine with pods on it.
type world struct {
	t   *testing.T
	dir string

	mu      sync.Mutex
	reading Reading
	pods    []*v1.Pod
	memory  map[types.UID]uint64 // what pods use
	layer   map[types.UID]uint64
	freed   func(w *world, uid types.UID) // what an end gives back
	unused  func(w *world)                // what unused images and containers give back
	asked   int                           // times that the runtime was asked
	stuck   bool                          // the API takes nothing

	evicted []string // in order, with reason, message and grace
	said    []string // what came to pass
	events  *record.FakeRecorder
	m       *Manager
}

func (w *world) Read() (Reading, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reading, nil
}

func (w *world) Active() []*v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pods)
}

func (w *world) Evict(_ context.Context, pod *v1.Pod, status *v1.PodStatus, grace time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := pod.Name + " " + string(status.Phase) + " " + status.Reason + " " + grace.String() + ": " + status.Message
	for _, c := range status.Conditions {
		what += "[" + string(c.Type) + " " + c.Reason + "]"
	}
	w.evicted = append(w.evicted, what)
	w.said = append(w.said, "evict "+pod.Name)
	w.pods = slices.DeleteFunc(w.pods, func(p *v1.Pod) bool { return p.UID == pod.UID })
	if w.freed != nil {
		w.freed(w, pod.UID)
	}
	return nil
}

func (w *world) Ended(pod *v1.Pod) bool { return !slices.Contains(w.Active(), pod) }

func (w *world) LocalStorage(pod *v1.Pod) LocalStorage {
	out := LocalStorage{Volumes: map[string]string{}, Logs: filepath.Join(w.dir, "logs", pod.Name)}
	for _, v := range pod.Spec.Volumes {
		out.Volumes[v.Name] = filepath.Join(w.dir, pod.Name, v.Name)
	}
	return out
}

func (w *world) DeleteAllUnusedContainers(context.Context) error { return nil }

func (w *world) DeleteUnusedImages(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, "unused images")
	if w.unused != nil {
		w.unused(w)
	}
	return nil
}

func (w *world) ListPodSandboxStats(context.Context, *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	var out []*runtimeapi.PodSandboxStats
	for _, p := range w.pods {
		used := &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: w.memory[p.UID]}}
		out = append(out, &runtimeapi.PodSandboxStats{
			Attributes: &runtimeapi.PodSandboxAttributes{Metadata: &runtimeapi.PodSandboxMetadata{Uid: string(p.UID)}},
			Linux: &runtimeapi.LinuxPodSandboxStats{
				Memory: used, Process: &runtimeapi.ProcessUsage{ProcessCount: &runtimeapi.UInt64Value{Value: w.memory[p.UID]}},
				Containers: []*runtimeapi.ContainerStats{{
					Attributes: &runtimeapi.ContainerAttributes{Metadata: &runtimeapi.ContainerMetadata{Name: "main"}}, Memory: used,
				}},
			},
		})
	}
	return out, nil
}

func (w *world) ListContainerStats(_ context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return []*runtimeapi.ContainerStats{{
		Attributes:    &runtimeapi.ContainerAttributes{Metadata: &runtimeapi.ContainerMetadata{Name: "main"}},
		WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: &runtimeapi.UInt64Value{Value: w.layer[runtimepod.UIDOf(f.LabelSelector)]}},
	}}, nil
}

func (w *world) announce(ctx context.Context) {
	w.mu.Lock()
	w.said = append(w.said, "announce")
	stuck := w.stuck
	w.mu.Unlock()
	if stuck {
		<-ctx.Done()
	}
}

// play runs a script beside a Manager, in a bubble where time is free. The
// machine has 1000 GiB of each, half of it free.
func play(t *testing.T, policy Policy, script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		fs := Filesystem{Capacity: 1000 * gibi, Available: 500 * gibi, Inodes: 1000, InodesFree: 500}
		w := &world{
			t: t, dir: t.TempDir(), events: record.NewFakeRecorder(1000), memory: map[types.UID]uint64{}, layer: map[types.UID]uint64{},
			reading: Reading{Memory: Memory{Capacity: 1000 * gibi, WorkingSet: 500 * gibi}, NodeFS: fs, ImageFS: fs, Tasks: 100, TasksMax: 1000},
		}
		var err error
		if w.m, err = New(Config{Policy: policy, Host: w, Runtime: w, Images: w, Recorder: w.events, NodeName: "n"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.m.Run(ctx, w, w.announce) }()
		synctest.Wait()
		script(w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// set changes the world and lets looks pass until it has had its effect.
func (w *world) set(change func(*world)) {
	w.mu.Lock()
	change(w)
	w.mu.Unlock()
	w.pass(Period + time.Second)
}

func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func makePod(name string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name)},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "main"}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func priority(n int32) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.Priority = &n } }

func requests(name v1.ResourceName, amount string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{name: resource.MustParse(amount)}
	}
}

// The order is: those above their requests, of low priority, far above; critical
// pods never. One at a time, until there is room.
func TestOrder(t *testing.T) {
	play(t, Policy{PressureTransitionPeriod: time.Minute}, func(w *world) {
		w.set(func(w *world) {
			w.pods = []*v1.Pod{
				makePod("critical", priority(2_000_001_000)),
				makePod("within", requests(v1.ResourceMemory, "100Gi")),
				makePod("important", priority(10)), makePod("little"), makePod("much"),
			}
			w.memory = map[types.UID]uint64{"critical": 300 * gibi, "within": 90 * gibi, "important": 80 * gibi, "little": 10 * gibi, "much": 20 * gibi}
			w.reading.Memory.WorkingSet = 1000*gibi - 50<<20
		})
		w.pass(10 * time.Minute)
		got := []string{}
		for _, e := range w.evicted {
			got = append(got, strings.Fields(e)[0])
		}
		if diff := cmp.Diff([]string{"much", "little", "important", "within"}, got); diff != "" {
			t.Error(diff)
		}
		want := "much Failed Evicted 1s: The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. " +
			"Container main was using 20Gi, request is 0, has larger consumption of memory. [DisruptionTarget TerminationByKubelet]"
		if w.evicted[0] != want {
			t.Errorf("evicted as\n%s\nwant\n%s", w.evicted[0], want)
		}
		if w.said[0] != "announce" {
			t.Errorf("evicted before the node's pressure was told: %v", w.said)
		}
	})
}

// Pressures are told, keep pods away as they do in Kubernetes, and go when they
// haven't been seen for a while.
func TestPressures(t *testing.T) {
	const hold = time.Minute
	bestEffort, burstable := makePod("b"), makePod("r", requests(v1.ResourceCPU, "1"))
	critical := makePod("c", priority(2_000_000_000))
	for _, tc := range []struct {
		kind     v1.NodeConditionType
		begin    func(*world)
		admitted []*v1.Pod
	}{
		{v1.NodeMemoryPressure, func(w *world) { w.reading.Memory.WorkingSet = 1000 * gibi }, []*v1.Pod{burstable, critical}},
		{v1.NodeDiskPressure, func(w *world) { w.reading.NodeFS.Available = 9 * gibi }, []*v1.Pod{critical}},
		{v1.NodeDiskPressure, func(w *world) { w.reading.ImageFS.InodesFree = 49 }, []*v1.Pod{critical}},
		{v1.NodePIDPressure, func(w *world) { w.reading.Tasks = 951 }, []*v1.Pod{critical}},
	} {
		play(t, Policy{PressureTransitionPeriod: hold}, func(w *world) {
			before := w.reading
			admitted := func() []*v1.Pod {
				var out []*v1.Pod
				for _, p := range []*v1.Pod{bestEffort, burstable, critical} {
					reason, message := w.m.Admit(t.Context(), p)
					if message == "" {
						out = append(out, p)
					} else if reason != "Evicted" || message != "The node had condition: ["+string(tc.kind)+"]. " {
						t.Errorf("%s: refused as %q, %q", tc.kind, reason, message)
					}
				}
				return out
			}
			if got := admitted(); len(got) != 3 {
				t.Errorf("without any pressure, %d of 3 pods are admitted", len(got))
			}
			w.set(tc.begin)
			for _, kind := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
				if w.m.Under(kind) != (kind == tc.kind) {
					t.Errorf("%s: %s is %v", tc.kind, kind, w.m.Under(kind))
				}
			}
			if got := admitted(); !slices.Equal(got, tc.admitted) {
				t.Errorf("%s: admitted are %v", tc.kind, got)
			}
			w.set(func(w *world) { w.reading = before })
			if !w.m.Under(tc.kind) {
				t.Errorf("%s: taken back at once", tc.kind)
			}
			w.pass(hold)
			if w.m.Under(tc.kind) {
				t.Errorf("%s: never taken back", tc.kind)
			}
		})
	}
}

// A full disk is first rid of what nobody uses.
func TestDiskWithoutEviction(t *testing.T) {
	play(t, Policy{}, func(w *world) {
		w.set(func(w *world) {
			w.pods = []*v1.Pod{makePod("p")}
			w.reading.NodeFS.Available = gibi
			w.unused = func(w *world) { w.reading.NodeFS.Available = 500 * gibi }
		})
		if len(w.evicted) > 0 || !slices.Equal(w.said, []string{"unused images"}) {
			t.Errorf("came to pass: %v", w.said)
		}
		if e := <-w.events.Events; e != "Warning EvictionThresholdMet Attempting to reclaim ephemeral-storage" {
			t.Errorf("event %q", e)
		}
	})
}

// The pod that takes most of the disk beyond its request goes.
func TestDisk(t *testing.T) {
	play(t, Policy{}, func(w *world) {
		w.set(func(w *world) {
			w.pods = []*v1.Pod{makePod("small"), makePod("large"), makePod("asked", requests(v1.ResourceEphemeralStorage, "9Gi"))}
			w.layer = map[types.UID]uint64{"small": gibi, "large": 2 * gibi, "asked": 8 * gibi}
			w.reading.NodeFS.Available = 9 * gibi
			w.freed = func(w *world, uid types.UID) { w.reading.NodeFS.Available += int64(w.layer[uid]) }
		})
		want := []string{"large Failed Evicted 1s: The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. " +
			"Container main was using 2Gi, request is 0, has larger consumption of ephemeral-storage. [DisruptionTarget TerminationByKubelet]"}
		if diff := cmp.Diff(want, w.evicted); diff != "" {
			t.Error(diff)
		}
	})
}

// A full disk on which the store is, too, isn't waited for.
func TestNothingCanBeTold(t *testing.T) {
	play(t, Policy{}, func(w *world) {
		w.set(func(w *world) {
			w.stuck = true
			w.pods = []*v1.Pod{makePod("p")}
			w.reading.NodeFS.Available = 0
		})
		if len(w.evicted) != 1 {
			t.Errorf("evicted: %v", w.evicted)
		}
	})
}

// A soft threshold waits for its grace period, and leaves pods theirs.
func TestSoft(t *testing.T) {
	policy := Policy{
		Hard: map[string]string{}, Soft: map[string]string{"memory.available": "200Gi"}, SoftGracePeriod: map[string]string{"memory.available": "1m"}, MaxPodGracePeriod: 20,
		MinimumReclaim: map[string]string{"memory.available": "100Gi"},
	}
	play(t, policy, func(w *world) {
		w.set(func(w *world) {
			w.pods = []*v1.Pod{
				makePod("a", func(p *v1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](7) }), makePod("b"), makePod("c"),
			}
			w.memory = map[types.UID]uint64{"a": 90 * gibi, "b": 80 * gibi, "c": 10 * gibi}
			w.reading.Memory.WorkingSet = 850 * gibi
			w.freed = func(w *world, uid types.UID) { w.reading.Memory.WorkingSet -= int64(w.memory[uid]) }
		})
		if len(w.evicted) > 0 {
			t.Fatalf("evicted before the grace period was over: %v", w.evicted)
		}
		w.pass(5 * time.Minute)
		if len(w.evicted) != 2 || !strings.HasPrefix(w.evicted[0], "a Failed Evicted 7s") || !strings.HasPrefix(w.evicted[1], "b Failed Evicted 20s") {
			t.Errorf("evicted: %v", w.evicted)
		}
	})
}

// Limits on the disk hold at any time, and disrupt nobody but who exceeds them.
func TestLimits(t *testing.T) {
	limit := func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("1Mi")}
	}
	volume := func(name string, e v1.EmptyDirVolumeSource) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: &e}})
		}
	}
	mib := ptr.To(resource.MustParse("1Mi"))
	play(t, Policy{}, func(w *world) {
		write := func(path string, size int) {
			path = filepath.Join(w.dir, path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, size), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		for _, pod := range []string{"sized/v", "pod/v", "unlimited/v", "memory/v"} {
			write(pod+"/f", 2<<20)
		}
		write("logs/log/main/0.log", 2<<20)
		write("kept/v/f", 1<<18)
		w.set(func(w *world) {
			w.layer = map[types.UID]uint64{"layer": 2 << 20, "kept": 1 << 18}
			w.pods = []*v1.Pod{
				makePod("sized", volume("v", v1.EmptyDirVolumeSource{SizeLimit: mib})),
				makePod("pod", volume("v", v1.EmptyDirVolumeSource{}), limit),
				makePod("unlimited", volume("v", v1.EmptyDirVolumeSource{})),
				makePod("memory", volume("v", v1.EmptyDirVolumeSource{SizeLimit: mib, Medium: v1.StorageMediumMemory})),
				makePod("layer", limit), makePod("log", limit), makePod("kept", limit, volume("v", v1.EmptyDirVolumeSource{SizeLimit: mib})),
			}
		})
		want := []string{
			`sized Failed Evicted 1s: Usage of EmptyDir volume "v" exceeds the limit "1Mi". `,
			`pod Failed Evicted 1s: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. `,
			`layer Failed Evicted 1s: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. `,
			`log Failed Evicted 1s: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. `,
		}
		if diff := cmp.Diff(want, w.evicted); diff != "" {
			t.Error(diff)
		}
	})
}

// As long as nothing is short, and no pod has a limit on its disk, nobody is asked.
func TestRest(t *testing.T) {
	play(t, Policy{}, func(w *world) {
		w.set(func(w *world) {
			w.pods = []*v1.Pod{makePod("a"), makePod("b", requests(v1.ResourceEphemeralStorage, "1Gi"))}
		})
		w.pass(time.Hour)
		if w.asked > 0 {
			t.Errorf("at rest, the runtime was asked %d times", w.asked)
		}
	})
}

// What a look costs at rest must not be felt.
func BenchmarkLookAtRest(b *testing.B) {
	dir := b.TempDir()
	w := &world{events: record.NewFakeRecorder(1)}
	for i := range 100 {
		w.pods = append(w.pods, makePod(string(rune('a'+i)), requests(v1.ResourceMemory, "1Gi")))
	}
	m, err := New(Config{Host: LinuxHost(1<<40, dir, func() string { return dir }), Runtime: w, Images: w, Recorder: w.events, NodeName: "n"})
	if err != nil {
		b.Fatal(err)
	}
	m.pods = w
	for b.Loop() {
		if _, err := (seam{m}).Get(b.Context(), true); err != nil {
			b.Fatal(err)
		}
	}
}
