package podgc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	clienttesting "k8s.io/client-go/testing"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pod is one that was created so many minutes after start.
func pod(name string, minute int, phase corev1.PodPhase, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-of-" + name),
			CreationTimestamp: metav1.NewTime(start.Add(time.Duration(minute) * time.Minute)),
		},
		Status: corev1.PodStatus{Phase: phase},
	}
	for _, e := range edit {
		e(p)
	}
	return p
}

func evictedPod(p *corev1.Pod) { p.Status.Reason = "Evicted" }

func leaving(p *corev1.Pod) {
	p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: start.Add(time.Hour)}, []string{"example.com/held"}
}

// api is one in memory, with what was asked of it.
type api struct {
	*fake.Clientset
	informers informers.SharedInformerFactory

	mu      sync.Mutex
	deleted []string
	// refuse is how many deletions fail.
	refuse int
}

func newAPI(pods ...*corev1.Pod) *api {
	var objects []runtime.Object
	for _, p := range pods {
		objects = append(objects, p)
	}
	a := &api{Clientset: fake.NewClientset(objects...)}
	a.informers = informers.NewSharedInformerFactory(a, 0)
	a.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		d := action.(clienttesting.DeleteActionImpl)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.refuse > 0 {
			a.refuse--
			return true, nil, errors.New("not now")
		}
		o := d.DeleteOptions
		if o.GracePeriodSeconds == nil || *o.GracePeriodSeconds != 0 || o.Preconditions == nil || *o.Preconditions.UID != types.UID("uid-of-"+d.Name) {
			return true, nil, fmt.Errorf("deleted with %+v", o)
		}
		a.deleted = append(a.deleted, d.Name)
		return false, nil, nil
	})
	return a
}

// run runs a collector until do returns.
func (a *api) run(t *testing.T, threshold int, do func(ctx context.Context)) {
	t.Helper()
	c, err := New(a, a.informers.Core().V1().Pods(), threshold)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a.informers.StartWithContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	cache.WaitForCacheSync(ctx.Done(), a.informers.Core().V1().Pods().Informer().HasSynced)
	do(ctx)
	cancel()
	wg.Wait()
	a.informers.Shutdown()
}

// gone are the pods that were deleted, sorted.
func (a *api) gone() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(slices.Values(a.deleted))
}

func TestCollector(t *testing.T) {
	for name, test := range map[string]struct {
		threshold int
		pods      []*corev1.Pod
		want      []string
	}{
		"at the threshold": {
			threshold: 2,
			pods:      []*corev1.Pod{pod("a", 1, corev1.PodSucceeded), pod("b", 2, corev1.PodFailed)},
		},
		"the oldest of more": {
			threshold: 2,
			pods:      []*corev1.Pod{pod("new", 3, corev1.PodSucceeded), pod("old", 1, corev1.PodSucceeded), pod("middle", 2, corev1.PodFailed), pod("older", 0, corev1.PodFailed)},
			want:      []string{"old", "older"},
		},
		"evicted ones first": {
			threshold: 2,
			pods:      []*corev1.Pod{pod("old", 1, corev1.PodSucceeded), pod("middle", 2, corev1.PodFailed), pod("evicted", 3, corev1.PodFailed, evictedPod)},
			want:      []string{"evicted"},
		},
		"those of one moment by their names": {
			threshold: 1,
			pods:      []*corev1.Pod{pod("b", 1, corev1.PodSucceeded), pod("a", 1, corev1.PodSucceeded)},
			want:      []string{"a"},
		},
		"none that runs": {
			threshold: 1,
			pods:      []*corev1.Pod{pod("pending", 1, corev1.PodPending), pod("runs", 2, corev1.PodRunning), pod("unknown", 3, corev1.PodUnknown), pod("over", 4, corev1.PodSucceeded)},
		},
		"none that goes already": {
			threshold: 1,
			pods:      []*corev1.Pod{pod("goes", 1, corev1.PodSucceeded, leaving), pod("over", 2, corev1.PodSucceeded)},
		},
		"without a threshold": {
			threshold: 0,
			pods:      []*corev1.Pod{pod("a", 1, corev1.PodSucceeded), pod("b", 2, corev1.PodSucceeded)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(test.pods...)
				a.run(t, test.threshold, func(context.Context) { synctest.Wait() })
				if got := a.gone(); !slices.Equal(got, test.want) {
					t.Errorf("deleted %v, want %v", got, test.want)
				}
			})
		})
	}
}

// It acts when a pod ends, not at some later look; and what others delete counts no more.
func TestCollectorFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(pod("a", 1, corev1.PodSucceeded), pod("b", 2, corev1.PodRunning), pod("c", 3, corev1.PodRunning))
		a.run(t, 1, func(ctx context.Context) {
			pods := a.CoreV1().Pods("default")
			end := func(p *corev1.Pod) {
				t.Helper()
				if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			began := time.Now()
			end(pod("b", 2, corev1.PodSucceeded))
			if got := a.gone(); !slices.Equal(got, []string{"a"}) {
				t.Fatalf("when b had ended, %v were deleted", got)
			}
			end(pod("b", 2, corev1.PodSucceeded, func(p *corev1.Pod) { p.Status.Message = "still over" }))
			if err := pods.Delete(ctx, "b", metav1.DeleteOptions{
				GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions("uid-of-b"),
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			end(pod("c", 3, corev1.PodSucceeded))
			if got := a.gone(); !slices.Equal(got, []string{"a", "b"}) {
				t.Fatalf("when c was the only one that had ended, %v were deleted", got)
			}
			if waited := time.Since(began); waited > 0 {
				t.Errorf("it took %s", waited)
			}
		})
	})
}

// A deletion that fails is tried again, less and less often.
func TestCollectorTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(pod("a", 1, corev1.PodSucceeded), pod("b", 2, corev1.PodSucceeded))
		a.refuse = 8
		a.run(t, 1, func(context.Context) {
			synctest.Wait()
			if got := a.gone(); len(got) > 0 {
				t.Fatalf("refused, %v were deleted", got)
			}
			time.Sleep(time.Minute) // of the bubble's
			if got := a.gone(); !slices.Equal(got, []string{"a"}) {
				t.Errorf("deleted %v", got)
			}
		})
	})
}

// At its end it leaves what it hasn't begun, be that thousands.
func TestCollectorStops(t *testing.T) {
	a := newAPI()
	c, err := New(a, a.informers.Core().V1().Pods(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		c.observe(pod(fmt.Sprintf("pod-%d", i), i, corev1.PodSucceeded))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ctx)
	if n := len(a.Actions()); n > 0 {
		t.Errorf("it asked for %d deletions", n)
	}
}

// What it knows doesn't grow with the pods that have come and gone.
func TestCollectorForgets(t *testing.T) {
	c, err := New(fake.NewClientset(), informers.NewSharedInformerFactory(fake.NewClientset(), 0).Core().V1().Pods(), 10)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		p := pod(fmt.Sprintf("pod-%d", i), i, corev1.PodSucceeded)
		c.observe(p)
		if i%2 == 0 {
			c.gone(p)
		}
	}
	if c.kept.Len() != 10 {
		t.Errorf("%d are kept", c.kept.Len())
	}
	for len(c.ended) > 0 {
		for uid, e := range c.ended {
			c.gone(cache.DeletedFinalStateUnknown{Obj: pod(e.name, 0, corev1.PodSucceeded, func(p *corev1.Pod) { p.UID = uid })})
		}
	}
	if c.kept.Len() != 0 {
		t.Errorf("%d are kept after all have gone", c.kept.Len())
	}
}
