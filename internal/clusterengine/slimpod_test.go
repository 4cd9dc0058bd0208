package clusterengine

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/randfill"
)

// somePods have something in all fields, and in any.
func somePods(t *testing.T) []*corev1.Pod {
	t.Helper()
	pods := []*corev1.Pod{{}, fullPod("Job"), fullPod("ReplicaSet"), fullPod("")}
	filler := randfill.NewWithSeed(1).NilChance(0.5).NumElements(1, 3).MaxDepth(12)
	for range 200 {
		p := &corev1.Pod{}
		filler.Fill(p)
		p.TypeMeta = fullPod("").TypeMeta // not in the message
		pods = append(pods, p)
	}
	return pods
}

func encoded(t *testing.T, p *corev1.Pod) []byte {
	t.Helper()
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What trimming leaves of a pod that is decoded in part is what it leaves of the whole one.
func TestSlimPodsAreTrimmedTheSame(t *testing.T) {
	for i, pod := range somePods(t) {
		data := encoded(t, pod)
		var whole corev1.Pod
		if err := whole.Unmarshal(data); err != nil {
			t.Fatal(err)
		}
		var slim slimPod
		if err := slim.Unmarshal(data); err != nil {
			t.Fatalf("pod %d: %v", i, err)
		}
		if diff := cmp.Diff(trimmed(t, &whole), trimmed(t, &slim)); diff != "" {
			t.Fatalf("pod %d, trimmed (-whole +slim):\n%s", i, diff)
		}
	}
}

// Nearly all of a pod's message is left out.
func TestSlimPodsAreSlim(t *testing.T) {
	data := encoded(t, fullPod("Job"))
	var slim slimPod
	if err := slim.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	if slim.ManagedFields != nil || slim.Spec.Containers != nil || slim.Spec.Volumes != nil || slim.Spec.InitContainers[0].Image != "" || slim.Status.PodIPs != nil {
		t.Errorf("decoded: %+v", slim.Pod)
	}
}

// A message that was cut off, or isn't one, is an error and nothing worse.
func TestSlimPodsOfBadMessages(t *testing.T) {
	data := encoded(t, fullPod("Job"))
	random := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		bad := append([]byte(nil), data[:random.IntN(len(data)+1)]...)
		for range random.IntN(3) {
			if len(bad) > 0 {
				bad[random.IntN(len(bad))] = byte(random.Uint32())
			}
		}
		var slim slimPod
		_ = slim.Unmarshal(bad) // it must return
	}
	for _, bad := range [][]byte{data[:len(data)-1], {0xff}, {0x0a, 0x05, 0x00}} {
		var slim slimPod
		if err := slim.Unmarshal(bad); err == nil {
			t.Errorf("%x was taken for a pod", bad)
		}
	}
}

// A watch's codec makes slimPods of what the API server sends, and of each other kind what it is.
func TestSlimPodsByTheirCodec(t *testing.T) {
	pod := fullPod("Job")
	pod.APIVersion, pod.Kind = "v1", "Pod"
	list := &corev1.PodList{Items: []corev1.Pod{*fullPod("Job")}}
	list.APIVersion, list.Kind = "v1", "PodList"
	for _, mediaType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		info, ok := runtime.SerializerInfoForMediaType(slimPods.SupportedMediaTypes(), mediaType)
		if !ok {
			t.Fatalf("no codec for %s", mediaType)
		}
		decode := func(obj runtime.Object) runtime.Object {
			data, err := runtime.Encode(info.Serializer, obj)
			if err != nil {
				t.Fatal(err)
			}
			got, err := runtime.Decode(slimPods.WithoutConversion().DecoderToVersion(info.Serializer, corev1.SchemeGroupVersion), data)
			if err != nil {
				t.Fatalf("%s: %v", mediaType, err)
			}
			return got
		}
		slim, ok := decode(pod).(*slimPod)
		if !ok || slim.Name != "p" || slim.Spec.NodeName != "here" {
			t.Errorf("%s: %+v", mediaType, slim)
		}
		if got, ok := decode(list).(*corev1.PodList); !ok || len(got.Items) != 1 || got.Items[0].Name != "p" {
			t.Errorf("%s: %+v", mediaType, got)
		}
	}
}

// BenchmarkDecode compares decoding a pod in part with decoding it whole.
func BenchmarkDecode(b *testing.B) {
	data, err := benchPod().Marshal()
	if err != nil {
		b.Fatal(err)
	}
	for name, decode := range map[string]func() error{
		"whole": func() error { return new(corev1.Pod).Unmarshal(data) },
		"slim":  func() error { return new(slimPod).Unmarshal(data) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchPod is as the API server sends it, with what it fills in itself.
func benchPod() *corev1.Pod {
	p := fullPod("Job")
	p.ManagedFields = []metav1.ManagedFieldsEntry{
		{Manager: "errand-controller", FieldsV1: metav1.NewFieldsV1(strings.Repeat(`"f:spec":{},`, 80))},
		{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1(strings.Repeat(`"f:status":{},`, 50))},
	}
	p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-abcde", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(int32(420)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To(int64(3607)), Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		},
	}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access-abcde", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
	p.Spec.Containers[0].Command = []string{"sh", "-c", "exec work"}
	p.Spec.ServiceAccountName, p.Spec.SchedulerName, p.Spec.DNSPolicy = "default", "default-scheduler", corev1.DNSClusterFirst
	p.Spec.SecurityContext, p.Spec.Priority, p.Spec.TerminationGracePeriodSeconds = &corev1.PodSecurityContext{}, ptr.To(int32(0)), ptr.To(int64(30))
	p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(300))}}
	return p
}
