package apiserver

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/pod"
)

// A watch and a list share an object's memory; what is decoded to be updated is its caller's alone.
func TestSharedVersions(t *testing.T) {
	codec := legacyscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
	data, err := runtime.Encode(codec, &api.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}, Spec: api.PodSpec{Containers: []api.Container{{Name: "main"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	versions := newSharedVersions()
	obj, err := runtime.Decode(versions.codec(codec), data)
	if err != nil {
		t.Fatal(err)
	}
	watched := obj.(*api.Pod)
	decoder := versions.decoder(etcd3.NewDefaultDecoder(codec, storage.APIObjectVersioner{}))
	var mine api.Pod
	if err := decoder.Decode(data, &mine, 7); err != nil {
		t.Fatal(err)
	}
	if &watched.Spec.Containers[0] == &mine.Spec.Containers[0] {
		t.Error("an update changes what the cache has")
	}
	obj, err = decoder.DecodeListItem(t.Context(), data, 7, func() runtime.Object { return &api.Pod{} })
	if err != nil {
		t.Fatal(err)
	}
	if listed := obj.(*api.Pod); &watched.Spec.Containers[0] != &listed.Spec.Containers[0] || listed.ResourceVersion != "7" {
		t.Error("a list's item isn't the watch's, or not of its version")
	}
}

func TestSharedAttrs(t *testing.T) {
	attrs := newSharedVersions().attrs(pod.GetAttrs)
	get := func(phase api.PodPhase) fields.Set {
		_, set, err := attrs(&api.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}, Status: api.PodStatus{Phase: phase}})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first, again, ended := get(api.PodPending), get(api.PodPending), get(api.PodSucceeded)
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
