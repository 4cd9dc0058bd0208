package inprocess_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"

	"errand.dev/errand/internal/apiserver/inprocess"
	"errand.dev/errand/internal/apiserver/inprocess/clienttest"
)

func newClient(t *testing.T, change func(*inprocess.Config)) kubernetes.Interface {
	t.Helper()
	cfg := server(t).config
	change(&cfg)
	c, err := inprocess.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewNeedsAllParts(t *testing.T) {
	_, err := inprocess.New(inprocess.Config{})
	for _, part := range []string{"Storage", "Scheme", "Fallback"} {
		if err == nil || !contains(err, "the field "+part+" is required") {
			t.Errorf("no word about %s in %v", part, err)
		}
	}
}

func contains(err error, text string) bool {
	return slices.ContainsFunc(err.(interface{ Unwrap() error }).Unwrap().(interface{ Unwrap() []error }).Unwrap(), func(e error) bool { return e.Error() == text })
}

// noHTTP is a transport that notes the requests that should not have been made.
type noHTTP struct {
	mu       sync.Mutex
	requests []string
}

func (n *noHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests = append(n.requests, r.Method+" "+r.URL.Path)
	return nil, errors.New("there is no HTTP here")
}

// TestHotVerbsNeedNoHTTP cuts the fallback off: what is meant to be fast must not silently take the slow way.
func TestHotVerbsNeedNoHTTP(t *testing.T) {
	transport := &noHTTP{}
	remote, err := kubernetes.NewForConfig(&restclient.Config{Host: "http://nowhere", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, func(cfg *inprocess.Config) { cfg.Fallback = remote })
	ctx := t.Context()
	pods, leases := c.CoreV1().Pods("default"), c.CoordinationV1().Leases("default")
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	p, err := pods.Create(ctx, clienttest.MakePod("hot"), metav1.CreateOptions{})
	check("create", err)
	p, err = pods.Update(ctx, p, metav1.UpdateOptions{})
	check("update", err)
	_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	check("status", err)
	for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
		_, err = pods.Patch(ctx, "hot", pt, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status")
		check("patch", err)
	}
	_, err = pods.Patch(ctx, "hot", types.JSONPatchType, []byte(`[]`), metav1.PatchOptions{})
	check("json patch", err)
	check("bind", pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "hot"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{}))
	_, err = pods.Get(ctx, "hot", metav1.GetOptions{})
	check("get", err)
	_, err = pods.List(ctx, metav1.ListOptions{})
	check("list", err)
	_, err = c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	check("list all", err)
	w, err := c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
	check("watch", err)
	w.Stop()
	check("delete", pods.Delete(ctx, "hot", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	check("delete all", pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	_, err = c.CoreV1().Events("").CreateWithEventNamespaceWithContext(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hot"}, InvolvedObject: corev1.ObjectReference{Namespace: "default"}})
	check("event", err)
	_, err = leases.Update(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "hot"}}, metav1.UpdateOptions{})
	check("lease", err)
	if len(transport.requests) > 0 {
		t.Errorf("requests by HTTP: %v", transport.requests)
	}
}

// TestUnservedResources leaves to the fallback what has no registry here.
func TestUnservedResources(t *testing.T) {
	all := server(t).config.Storage
	c := newClient(t, func(cfg *inprocess.Config) {
		cfg.Storage = func(r schema.GroupVersionResource, sub string) (rest.Storage, bool) {
			if r.Resource == "pods" {
				return nil, false
			}
			return all(r, sub)
		}
	})
	p, err := c.CoreV1().Pods("default").Create(t.Context(), clienttest.MakePod("remote"), metav1.CreateOptions{})
	if err != nil || len(p.ManagedFields) == 0 {
		t.Errorf("the pod wasn't created by HTTP: %v, %v", p.ManagedFields, err)
	}
	if err := c.CoreV1().Pods("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

// TestUser shows admission the user of the config.
func TestUser(t *testing.T) {
	c := newClient(t, func(cfg *inprocess.Config) { cfg.User = &user.DefaultInfo{Name: "system:errand:test"} })
	p, err := c.CoreV1().Pods("default").Create(t.Context(), annotated("u", hookTell, ""), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	want := "CREATE /v1, Resource=pods  default/u kind=/v1, Kind=Pod hub=/__internal, Kind=Pod dry=true old=false user=system:errand:test options=meta.k8s.io/v1, Kind=CreateOptions"
	if got := p.Annotations[hookTell]; got != want {
		t.Errorf("admission was told\n%s\ninstead of\n%s", got, want)
	}
}

type recorder struct{ texts []string }

func (r *recorder) AddWarning(_, text string) { r.texts = append(r.texts, text) }

// TestWarnings gets what the HTTP path sends as headers.
func TestWarnings(t *testing.T) {
	warnings := &recorder{}
	c := newClient(t, func(cfg *inprocess.Config) { cfg.Warnings = warnings })
	cms := c.CoreV1().ConfigMaps("default")
	if _, err := cms.Create(t.Context(), clienttest.MakeConfigMap("warned"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
		if _, err := cms.Patch(t.Context(), "warned", pt, []byte(`{"invented":1}`), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	if want := []string{`unknown field "invented"`, `unknown field "invented"`}; !slices.Equal(warnings.texts, want) {
		t.Errorf("got %q, want %q", warnings.texts, want)
	}
}

// busy is a registry that refuses some requests for now.
type busy struct {
	rest.Storage
	rest.Getter
	rest.Scoper
	refusals int
	calls    int
}

func (b *busy) Get(ctx context.Context, name string, opts *metav1.GetOptions) (runtime.Object, error) {
	if b.calls++; b.calls <= b.refusals {
		return nil, apierrors.NewTooManyRequests("storage is (re)initializing", 2)
	}
	return b.Getter.Get(ctx, name, opts)
}

// TestRetryAfter has a request repeated as client-go does: when and as often as the server says.
func TestRetryAfter(t *testing.T) {
	for name, test := range map[string]struct {
		refusals, calls int
		ok              bool
	}{
		"soon":  {refusals: 2, calls: 3, ok: true},
		"never": {refusals: 100, calls: 11},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testingclock.NewFakeClock(time.Now())
			all := server(t).config.Storage
			namespaces, _ := all(corev1.SchemeGroupVersion.WithResource("namespaces"), "")
			b := &busy{Storage: namespaces, Getter: namespaces.(rest.Getter), Scoper: namespaces.(rest.Scoper), refusals: test.refusals}
			c := newClient(t, func(cfg *inprocess.Config) {
				cfg.Clock = clock
				cfg.Storage = func(r schema.GroupVersionResource, sub string) (rest.Storage, bool) {
					if r.Resource == "namespaces" && sub == "" {
						return b, true
					}
					return all(r, sub)
				}
			})
			done := make(chan error, 1)
			start := clock.Now()
			go func() {
				_, err := c.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
				done <- err
			}()
			err := stepUntil(clock, done)
			if (err == nil) != test.ok || b.calls != test.calls {
				t.Errorf("after %d calls: %v", b.calls, err)
			}
			if waited := clock.Since(start); waited < time.Duration(test.calls-1)*2*time.Second {
				t.Errorf("waited %v", waited)
			}
		})
	}
}

// stepUntil moves the clock whenever someone waits for it.
func stepUntil(clock *testingclock.FakeClock, done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		default:
			if clock.HasWaiters() {
				clock.Step(time.Second)
			}
		}
	}
}

// busyStorage counts how many deletions are in progress.
type busyStorage struct {
	rest.Storage
	rest.Scoper
	rest.GracefulDeleter
	mu            sync.Mutex
	running, most int
	begun         chan struct{}
	goOn          chan struct{}
}

func (s *busyStorage) Delete(context.Context, string, rest.ValidateObjectFunc, *metav1.DeleteOptions) (runtime.Object, bool, error) {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	s.begun <- struct{}{}
	<-s.goOn
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
	return &metav1.Status{Status: metav1.StatusSuccess}, true, nil
}

// Many deletions begun together run a few at a time, and who gives up while it waits has deleted nothing.
func TestMaxWrites(t *testing.T) {
	const limit, all = 3, 20
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	busy := &busyStorage{begun: make(chan struct{}), goOn: make(chan struct{})}
	c := newClient(t, func(cfg *inprocess.Config) {
		cfg.MaxWrites = limit
		inner := cfg.Storage
		cfg.Storage = func(resource schema.GroupVersionResource, subresource string) (rest.Storage, bool) {
			storage, ok := inner(resource, subresource)
			if resource == pods && subresource == "" {
				busy.Storage, busy.Scoper = storage, storage.(rest.Scoper)
				return busy, ok
			}
			return storage, ok
		}
	})
	remove := func(ctx context.Context) error {
		return c.CoreV1().Pods("default").Delete(ctx, "any", metav1.DeleteOptions{})
	}
	errs := make(chan error, all)
	for range all {
		go func() { errs <- remove(t.Context()) }()
	}
	for range limit {
		<-busy.begun
	}
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan error, 1)
	go func() { late <- remove(ctx) }()
	cancel()
	if err := <-late; !errors.Is(err, context.Canceled) {
		t.Errorf("a deletion given up while waiting: %v", err)
	}
	for range all - limit {
		busy.goOn <- struct{}{}
		<-busy.begun
	}
	for range limit {
		busy.goOn <- struct{}{}
	}
	for range all {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if busy.most != limit {
		t.Errorf("%d deletions ran at once, %d may", busy.most, limit)
	}
}
