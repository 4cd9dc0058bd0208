package sharing

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/utils/ptr"
)

// stored is how etcd has a pod of a Job's.
func stored(t testing.TB, c kruntime.Codec, name string, change func(*corev1.Pod)) []byte {
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
	data, err := kruntime.Encode(c, p)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func storageCodec(t testing.TB) kruntime.Codec {
	t.Helper()
	info, ok := kruntime.SerializerInfoForMediaType(legacyscheme.Codecs.SupportedMediaTypes(), kruntime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	return legacyscheme.Codecs.CodecForVersions(info.Serializer, legacyscheme.Codecs.UniversalDeserializer(), corev1.SchemeGroupVersion, api.SchemeGroupVersion)
}

func decode(t testing.TB, c kruntime.Codec, data []byte) *api.Pod {
	t.Helper()
	obj, err := kruntime.Decode(c, data)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*api.Pod)
}

func succeeded(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

func memory[T any](s []T) *T { return &s[0] }

// What a codec that shares decodes is what one that doesn't decodes.
func TestSharingChangesNothing(t *testing.T) {
	plain := storageCodec(t)
	sharing := NewVersions().Codec(plain)
	var early []*api.Pod
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
			data := stored(t, plain, name, change)
			early = append(early, decode(t, sharing, data))
			if got, want := early[len(early)-1], decode(t, plain, data); !reflect.DeepEqual(got, want) {
				t.Errorf("change %d of %s: %+v, decoded alone %+v", i, name, got, want)
			}
		}
	}
	// Nor do later versions change earlier ones.
	if got, want := early[0], decode(t, plain, stored(t, plain, "a", nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("the first version has become %+v, was %+v", got, want)
	}
}

func TestVersionsShare(t *testing.T) {
	plain := storageCodec(t)
	sharing := NewVersions().Codec(plain)
	first := decode(t, sharing, stored(t, plain, "a", nil))
	second := decode(t, sharing, stored(t, plain, "a", succeeded))
	other := decode(t, sharing, stored(t, plain, "b", nil))
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

// What is decoded to be updated is its caller's alone.
func TestDecodeIntoIsPrivate(t *testing.T) {
	plain := storageCodec(t)
	versions := NewVersions()
	data := stored(t, plain, "a", nil)
	cached := decode(t, versions.Codec(plain), data)
	d := versions.Decoder(etcd3.NewDefaultDecoder(plain, storage.APIObjectVersioner{}))
	var mine api.Pod
	if err := d.Decode(data, &mine, 7); err != nil {
		t.Fatal(err)
	}
	if memory(cached.Spec.Containers) == memory(mine.Spec.Containers) {
		t.Error("an update changes what the cache has")
	}
	listed, err := d.DecodeListItem(t.Context(), data, 7, func() kruntime.Object { return &api.Pod{} })
	if err != nil {
		t.Fatal(err)
	}
	if p := listed.(*api.Pod); memory(cached.Spec.Containers) != memory(p.Spec.Containers) || p.ResourceVersion != "7" {
		t.Error("a list's item isn't the cache's, or not of its version")
	}
}

func TestAttrs(t *testing.T) {
	plain := storageCodec(t)
	attrs := NewVersions().Attrs(pod.GetAttrs)
	get := func(change func(*corev1.Pod)) (labels.Set, fields.Set) {
		l, f, err := attrs(decode(t, plain, stored(t, plain, "a", change)))
		if err != nil {
			t.Fatal(err)
		}
		return l, f
	}
	_, first := get(nil)
	_, again := get(func(p *corev1.Pod) { p.Finalizers = nil })
	_, ended := get(succeeded)
	if reflect.ValueOf(first).Pointer() != reflect.ValueOf(again).Pointer() {
		t.Error("the same fields are held twice")
	}
	if first["status.phase"] != "Pending" || ended["status.phase"] != "Succeeded" {
		t.Errorf("phases %q and %q", first["status.phase"], ended["status.phase"])
	}
	if _, _, err := attrs(&api.Node{}); err == nil {
		t.Error("no error for what isn't a pod")
	}
}

// etcd3 decodes several versions at once and writes into them afterwards; the race detector looks on.
func TestConcurrentVersions(t *testing.T) {
	plain := storageCodec(t)
	sharing := NewVersions().Codec(plain)
	data := [][]byte{stored(t, plain, "a", nil), stored(t, plain, "a", succeeded), stored(t, plain, "b", nil)}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 50 {
				p := decode(t, sharing, data[(i+n)%len(data)])
				if err := (storage.APIObjectVersioner{}).UpdateObject(p, uint64(n+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkDecode tells what a pod's decoding costs and what its versions hold, shared and not: each iteration is a Job's pod in four versions.
func BenchmarkDecode(b *testing.B) {
	plain := storageCodec(b)
	for name, c := range map[string]kruntime.Codec{"alone": plain, "shared": NewVersions().Codec(plain)} {
		b.Run(name, func(b *testing.B) {
			var data [][]byte
			for i := range 256 {
				n := fmt.Sprintf("work-%05d", i)
				data = append(data, stored(b, plain, n, nil), stored(b, plain, n, func(p *corev1.Pod) { p.Spec.NodeName = "here" }),
					stored(b, plain, n, succeeded), stored(b, plain, n, func(p *corev1.Pod) { succeeded(p); p.Finalizers = nil }))
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			kept := make([]*api.Pod, 0, 4*b.N)
			b.ReportAllocs()
			for b.Loop() {
				for range 4 {
					kept = append(kept, decode(b, c, data[len(kept)%len(data)]))
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
