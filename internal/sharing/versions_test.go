package sharing

import (
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// stored is how etcd has a pod of a Job's.
func stored(t testing.TB, name string, change func(*corev1.Pod)) []byte {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", GenerateName: "work-", UID: types.UID("uid-of-" + name),
			CreationTimestamp: metav1.Unix(1_700_000_000, 0),
			Labels: map[string]string{
				"batch.kubernetes.io/controller-uid": "1a2b", "batch.kubernetes.io/job-name": "work", "controller-uid": "1a2b", "job-name": "work",
			},
			Finalizers:      []string{"batch.kubernetes.io/job-tracking"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "work", UID: "1a2b", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "main", Image: "busybox", Command: []string{"echo", "Hello, Job"},
				Env:          []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
				VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-" + name, MountPath: "/var/run/secrets"}},
			}},
			Volumes: []corev1.Volume{{Name: "kube-api-access-" + name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}}},
			}}}},
			Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(300))}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort},
	}
	if change != nil {
		change(p)
	}
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t testing.TB, data []byte) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := p.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	return p
}

// shared decodes a pod as a cache gets it.
func shared(t testing.TB, v *Versions, data []byte) *corev1.Pod {
	t.Helper()
	p := decode(t, data)
	v.Share(p)
	return p
}

func succeeded(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

func memory[T any](s []T) *T { return &s[0] }

// What is shared says what it would say alone.
func TestSharingChangesNothing(t *testing.T) {
	versions := NewVersions(Newest)
	var early []*corev1.Pod
	for i, change := range []func(*corev1.Pod){
		nil,
		func(p *corev1.Pod) { p.Spec.NodeName = "here" },
		succeeded,
		func(p *corev1.Pod) { p.Finalizers = nil },
		func(p *corev1.Pod) { p.Labels["more"] = "" },
		func(p *corev1.Pod) { p.Labels = nil },
		func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{} },
		func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second"}) },
		func(p *corev1.Pod) { p.OwnerReferences[0].Controller = ptr.To(false) },
		func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(1_700_000_001, 0) },
		func(p *corev1.Pod) { p.Spec.Volumes[0].Projected = nil },
		func(p *corev1.Pod) { p.UID = "" },
	} {
		for _, name := range []string{"a", "b", strings.Repeat("long", 20)} {
			data := stored(t, name, change)
			early = append(early, shared(t, versions, data))
			if got, want := early[len(early)-1], decode(t, data); !reflect.DeepEqual(got, want) {
				t.Errorf("change %d of %s: %+v, decoded alone %+v", i, name, got, want)
			}
		}
	}
	// Nor do later versions change earlier ones.
	if got, want := early[0], decode(t, stored(t, "a", nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("the first version has become %+v, was %+v", got, want)
	}
}

func TestVersionsShare(t *testing.T) {
	versions := NewVersions(Newest)
	first := shared(t, versions, stored(t, "a", nil))
	second := shared(t, versions, stored(t, "a", succeeded))
	other := shared(t, versions, stored(t, "b", nil))
	for what, same := range map[string]bool{
		"a version's containers":            memory(first.Spec.Containers) == memory(second.Spec.Containers),
		"a version's volumes":               memory(first.Spec.Volumes) == memory(second.Spec.Volumes),
		"a version's owners":                memory(first.OwnerReferences) == memory(second.OwnerReferences),
		"a version's labels":                reflect.ValueOf(first.Labels).Pointer() == reflect.ValueOf(second.Labels).Pointer(),
		"another pod's command":             memory(first.Spec.Containers[0].Command) == memory(other.Spec.Containers[0].Command),
		"another pod's owners":              memory(first.OwnerReferences) == memory(other.OwnerReferences),
		"another pod's volume, by its name": first.Spec.Volumes[0].Projected == other.Spec.Volumes[0].Projected,
	} {
		if !same {
			t.Errorf("%s aren't shared", what)
		}
	}
	if memory(first.Spec.Containers) == memory(other.Spec.Containers) {
		t.Error("pods with different containers share them")
	}
}

// Several versions are shared at once, and the storage writes into them afterwards; the race detector looks on.
func TestConcurrentVersions(t *testing.T) {
	versions := NewVersions(Newest)
	data := [][]byte{stored(t, "a", nil), stored(t, "a", succeeded), stored(t, "b", nil)}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 50 {
				p := shared(t, versions, data[(i+n)%len(data)])
				p.ResourceVersion = strconv.Itoa(n)
			}
		})
	}
	all.Wait()
}

// BenchmarkDecode tells what a pod's decoding costs and what its versions hold, shared and not: each iteration is a Job's pod in four versions.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"alone", "shared"} {
		b.Run(name, func(b *testing.B) {
			versions := NewVersions(Newest)
			var data [][]byte
			for i := range 256 {
				n := fmt.Sprintf("work-%05d", i)
				data = append(data, stored(b, n, nil), stored(b, n, func(p *corev1.Pod) { p.Spec.NodeName = "here" }),
					stored(b, n, succeeded), stored(b, n, func(p *corev1.Pod) { succeeded(p); p.Finalizers = nil }))
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			kept := make([]*corev1.Pod, 0, 4*b.N)
			b.ReportAllocs()
			for b.Loop() {
				for range 4 {
					p := decode(b, data[len(kept)%len(data)])
					if name == "shared" {
						versions.Share(p)
					}
					kept = append(kept, p)
				}
			}
			b.StopTimer()
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/float64(len(kept)), "held-B/version")
			runtime.KeepAlive(kept)
		})
	}
}
