package volumes

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testingclock "k8s.io/utils/clock/testing"
)

// world is a Manager over a fake API server and a temporary directory.
type world struct {
	*Manager
	client  *fake.Clientset
	clock   *testingclock.FakeClock
	changes chan types.UID // what OnChange was called with
	tokens  int            // token requests so far
	fail    error          // what token requests answer, if set
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	return newWorldIn(t, Config{RootDir: t.TempDir()}, objects...)
}

func newWorldIn(t testing.TB, cfg Config, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{
		client:  fake.NewClientset(objects...),
		clock:   testingclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		changes: make(chan types.UID, 100),
	}
	w.client.PrependReactor("create", "serviceaccounts", w.answerToken)
	factory := informers.NewSharedInformerFactory(w.client, 0)
	cfg.Client, cfg.Clock = w.client, w.clock
	cfg.ConfigMaps, cfg.Secrets = factory.Core().V1().ConfigMaps(), factory.Core().V1().Secrets()
	cfg.Claims, cfg.Volumes = factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	cfg.OnChange = func(uid types.UID) { w.changes <- uid }
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Manager = m
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	return w
}

func (w *world) answerToken(action clienttesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "token" {
		return false, nil, nil
	}
	if w.fail != nil {
		return true, nil, w.fail
	}
	w.tokens++
	req := action.(clienttesting.CreateAction).GetObject().(*authv1.TokenRequest).DeepCopy()
	life := time.Duration(*req.Spec.ExpirationSeconds) * time.Second
	req.Status = authv1.TokenRequestStatus{
		Token:               "token-" + string(rune('0'+w.tokens)),
		ExpirationTimestamp: metav1.NewTime(w.clock.Now().Add(life)),
	}
	return true, req, nil
}

func (w *world) mustSetup(t *testing.T, pod *v1.Pod) map[string]Volume {
	t.Helper()
	vols, err := w.Setup(t.Context(), pod, Info{})
	if err != nil {
		t.Fatal(err)
	}
	return vols
}

func (w *world) mustRefresh(t *testing.T, pod *v1.Pod) {
	t.Helper()
	if err := w.Refresh(t.Context(), pod, Info{}); err != nil {
		t.Fatal(err)
	}
}

// awaitChange waits until OnChange is called for the pod.
func (w *world) awaitChange(t *testing.T, pod *v1.Pod) {
	t.Helper()
	select {
	case uid := <-w.changes:
		if uid != pod.UID {
			t.Fatalf("OnChange(%s), want %s", uid, pod.UID)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("OnChange was not called")
	}
}

func podWith(volumes ...v1.Volume) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "p", UID: "uid-1",
			Labels: map[string]string{"app": "x"},
		},
		Spec: v1.PodSpec{
			ServiceAccountName: "default",
			Volumes:            volumes,
			Containers:         []v1.Container{{Name: "c"}},
		},
	}
}

func configMapVolume(name, configMap string) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
		LocalObjectReference: v1.LocalObjectReference{Name: configMap},
	}}}
}

func secretVolume(name, secret string) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: secret}}}
}

func emptyDirVolume(name string) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}
}

func tokenVolume(name string, seconds int64) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
		Sources: []v1.VolumeProjection{{ServiceAccountToken: &v1.ServiceAccountTokenProjection{
			Path: "token", ExpirationSeconds: &seconds,
		}}},
	}}}
}

func configMap(name string, data map[string]string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: data}
}

func secret(name string, data map[string]string) *v1.Secret {
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

// contents is every file that a pod sees in a volume, by path.
func contents(t *testing.T, root string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if name := e.Name(); name[0] != '.' {
			collectFiles(t, filepath.Join(root, name), name, out)
		}
	}
	return out
}

func collectFiles(t *testing.T, path, name string, out map[string]string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(data)
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		collectFiles(t, filepath.Join(path, e.Name()), filepath.Join(name, e.Name()), out)
	}
}

func mustWrite(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
