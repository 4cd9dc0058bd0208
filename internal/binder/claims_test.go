package binder

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

func (b *podBuilder) claims(names ...string) *podBuilder {
	return b.with(func(p *v1.Pod) {
		for _, name := range names {
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "v-" + name, VolumeSource: v1.VolumeSource{
				PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}})
		}
	})
}

func (b *podBuilder) ephemeral(name string) *podBuilder {
	return b.with(func(p *v1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}})
	})
}

func makeClaim(name, class string, change ...func(*v1.PersistentVolumeClaim)) *v1.PersistentVolumeClaim {
	c := &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources:        v1.VolumeResourceRequirements{Requests: quantities("storage", "1Gi")},
		},
		Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func boundTo(volume string) func(*v1.PersistentVolumeClaim) {
	return func(c *v1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{storagehelpers.AnnBindCompleted: "yes"}
		c.Spec.VolumeName, c.Status.Phase = volume, v1.ClaimBound
	}
}

func makeVolume(name, class, node string) *v1.PersistentVolume {
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName: class,
			Capacity:         quantities("storage", "1Gi"),
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable},
	}
}

func makeClass(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

// storageWith holds two classes, "now" and "later", one for volumes that are
// there already, "found", and these objects.
func storageWith(t *testing.T, objects ...runtime.Object) *storage {
	t.Helper()
	indexers := func() cache.Indexer {
		return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	claims, volumes, classes := indexers(), indexers(), indexers()
	for _, o := range append(objects,
		makeClass("now", "p", storagev1.VolumeBindingImmediate),
		makeClass("later", "p", storagev1.VolumeBindingWaitForFirstConsumer),
		makeClass("found", storagehelpers.NotSupportedProvisioner, storagev1.VolumeBindingWaitForFirstConsumer),
	) {
		into := classes
		switch o.(type) {
		case *v1.PersistentVolumeClaim:
			into = claims
		case *v1.PersistentVolume:
			into = volumes
		}
		if err := into.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return &storage{
		corelisters.NewPersistentVolumeClaimLister(claims), corelisters.NewPersistentVolumeLister(volumes), storagelisters.NewStorageClassLister(classes),
	}
}

func TestPodsWithClaims(t *testing.T) {
	deleted := func(c *v1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }
	alone := func(c *v1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
	}
	const head = "0/1 nodes are available: "
	for _, tc := range []struct {
		name    string
		objects []runtime.Object
		pod     *podBuilder
		want    string
	}{
		{"bound", []runtime.Object{makeClaim("c", "now", boundTo("v")), makeVolume("v", "now", "n")}, makePod("p").claims("c"), ""},
		{"no such claim", nil, makePod("p").claims("c"), head + `persistentvolumeclaim "c" not found.` + noHelp},
		{"unbound", []runtime.Object{makeClaim("c", "now")}, makePod("p").claims("c"), head + "pod has unbound immediate PersistentVolumeClaims." + noHelp},
		{"of no class that there is", []runtime.Object{makeClaim("c", "gone")}, makePod("p").claims("c"), head + "pod has unbound immediate PersistentVolumeClaims." + noHelp},
		{"half bound", []runtime.Object{makeClaim("c", "now", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }), makeVolume("v", "now", "n")}, makePod("p").claims("c"),
			head + "pod has unbound immediate PersistentVolumeClaims." + noHelp},
		{"being deleted", []runtime.Object{makeClaim("c", "now", boundTo("v"), deleted), makeVolume("v", "now", "n")}, makePod("p").claims("c"),
			head + `persistentvolumeclaim "c" is being deleted.` + noHelp},
		{"lost", []runtime.Object{makeClaim("c", "now", boundTo("v"), func(c *v1.PersistentVolumeClaim) { c.Status.Phase = v1.ClaimLost })}, makePod("p").claims("c"),
			head + `persistentvolumeclaim "c" bound to non-existent persistentvolume "v".` + noHelp},
		{"its volume is missing", []runtime.Object{makeClaim("c", "now", boundTo("v"))}, makePod("p").claims("c"),
			head + "1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)." + noHelp},
		{"on another node", []runtime.Object{makeClaim("c", "now", boundTo("v")), makeVolume("v", "now", "m")}, makePod("p").claims("c"),
			head + "1 node(s) didn't match PersistentVolume's node affinity." + noHelp},
		{"used by one pod alone", []runtime.Object{makeClaim("c", "now", boundTo("v"), alone), makeVolume("v", "now", "n")}, makePod("p").claims("c"), ""},
		{"used by another pod already", []runtime.Object{makeClaim("used", "now", boundTo("v"), alone), makeVolume("v", "now", "n")}, makePod("p").claims("used"),
			head + "1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod." + noVictims},
		{"bound later, made on the node", []runtime.Object{makeClaim("c", "later")}, makePod("p").claims("c"), ""},
		{"bound later, found on the node", []runtime.Object{makeClaim("c", "found"), makeVolume("v", "found", "n")}, makePod("p").claims("c"), ""},
		{"bound later, two claims and one volume", []runtime.Object{makeClaim("c", "found"), makeClaim("d", "found"), makeVolume("v", "found", "n")}, makePod("p").claims("c", "d"),
			head + "1 node(s) didn't find available persistent volumes to bind." + noHelp},
		{"bound later, on another node", []runtime.Object{makeClaim("c", "found"), makeVolume("v", "found", "m")}, makePod("p").claims("c"),
			head + "1 node(s) didn't find available persistent volumes to bind." + noHelp},
		{"ephemeral, not made yet", nil, makePod("p").ephemeral("v"),
			head + `waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v".` + noHelp},
		{"ephemeral, but somebody else's", []runtime.Object{makeClaim("p-v", "now", boundTo("v")), makeVolume("v", "now", "n")}, makePod("p").ephemeral("v"),
			head + `PVC ns/p-v was not created for pod ns/p (pod is not owner).` + noHelp},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := stateWith(makeNode("n"), makePod("user").claims("used").on("n"))
			s.storage = storageWith(t, tc.objects...)
			n, d := s.decide(t.Context(), tc.pod.obj())
			got := ""
			if n == nil {
				got = d.String()
			}
			if got != tc.want {
				t.Errorf("%q\nwant %q", got, tc.want)
			}
			if n == nil && !d.curedBy(storageChanged) {
				t.Error("no change of what is claimed would have it tried again")
			}
		})
	}
}

func TestClaimsAreFreedWithTheirPod(t *testing.T) {
	s := stateWith(makeNode("n"), makePod("a").claims("c").on("n"), makePod("b").claims("c").on("n"))
	s.remove("uid-a")
	if !s.usesClaim("ns", "c") {
		t.Error("b still uses the claim")
	}
	s.remove("uid-b")
	if s.usesClaim("ns", "c") || len(s.users) != 0 {
		t.Error("nobody uses the claim any more")
	}
}

// A pod waits for its claim, and is bound as soon as the claim is.
func TestWaitsForClaim(t *testing.T) {
	w := newWorld(t, makeNode("n"), makeVolume("v", "now", "n"), makeClass("now", "p", storagev1.VolumeBindingImmediate), makeClaim("c", "now"))
	w.create(t, makePod("p").claims("c").obj())
	w.wantEvent(t, "p Warning FailedScheduling: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."+noHelp)
	w.updateClaim(t, makeClaim("c", "now", boundTo("v")))
	w.wantEvent(t, scheduled("p"))
}

func (w *world) updateClaim(t *testing.T, claim *v1.PersistentVolumeClaim) {
	t.Helper()
	if _, err := w.client.CoreV1().PersistentVolumeClaims("ns").Update(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Where a claim waits for its first pod, the pod's node is written on it, and
// the pod bound once the claim is: without a word of anything being wrong.
func TestBindsClaimOfFirstPod(t *testing.T) {
	w := newWorld(t, makeNode("n"), makeVolume("v", "later", "n"), makeClass("later", "p", storagev1.VolumeBindingWaitForFirstConsumer),
		makeClaim("c", "later", func(c *v1.PersistentVolumeClaim) { c.Spec.Resources.Requests = quantities("storage", "2Gi") }))
	claims, err := w.client.CoreV1().PersistentVolumeClaims("ns").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer claims.Stop()
	w.create(t, makePod("p").claims("c").obj())
	for e := range claims.ResultChan() {
		if e.Object.(*v1.PersistentVolumeClaim).Annotations[storagehelpers.AnnSelectedNode] == "n" {
			break
		}
	}
	w.updateClaim(t, makeClaim("c", "later", boundTo("v")))
	w.wantEvent(t, scheduled("p"))
}

// A volume that is there already and fits is reserved for the claim.
func TestReservesVolumeForClaim(t *testing.T) {
	w := newWorld(t, makeNode("n"), makeVolume("v", "found", "n"),
		makeClass("found", storagehelpers.NotSupportedProvisioner, storagev1.VolumeBindingWaitForFirstConsumer), makeClaim("c", "found"))
	volumes, err := w.client.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer volumes.Stop()
	w.create(t, makePod("p").claims("c").obj())
	for e := range volumes.ResultChan() {
		ref := ptr.Deref(e.Object.(*v1.PersistentVolume).Spec.ClaimRef, v1.ObjectReference{})
		if ref.Name == "c" && ref.Namespace == "ns" {
			break
		}
	}
}
