package jobrun

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// watches brings what any number of watches tell to one goroutine, which calls what
// it gets from calls, one after the other.
type watches struct {
	client kubernetes.Interface
	calls  chan func()
	ends   sync.WaitGroup
}

func newWatches(client kubernetes.Interface) *watches {
	return &watches{client: client, calls: make(chan func())}
}

// await ends when all watches have, after their contexts have.
func (w *watches) await() { w.ends.Wait() }

// do has f called by the one goroutine, unless ctx ends before.
func (w *watches) do(ctx context.Context, f func()) {
	select {
	case w.calls <- f:
	case <-ctx.Done():
	}
}

// told is what a watch calls.
type told[T metav1.Object] struct {
	// seen is called for every object there is, and for every change.
	seen func(T)
	// gone is called with the last state known of one that is deleted.
	gone func(T)
	// over, unless it is nil, says of which objects gone needn't be called: they needn't
	// be remembered.
	over func(T) bool
	// synced is called when all that there was at first has been seen.
	synced func()
	// lost is called when the API can't be asked or refuses; the watch goes on trying.
	lost func(error)
	// back is called whenever the watch begins, for the first time or again.
	back func()
}

// watchJobs watches the Jobs of a namespace: the one of that name, or all for "".
func (w *watches) watchJobs(ctx context.Context, namespace, name string, t told[*batchv1.Job]) {
	selector := metav1.ListOptions{}
	if name != "" {
		selector.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
	run(ctx, w, w.client.BatchV1().Jobs(namespace), selector, t)
}

// watchPods watches the pods that a Job selects.
func (w *watches) watchPods(ctx context.Context, job *batchv1.Job, t told[*corev1.Pod]) {
	selector := metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(job.Spec.Selector)}
	run(ctx, w, w.client.CoreV1().Pods(job.Namespace), selector, t)
}

// watchEvents watches the events about one object.
func (w *watches) watchEvents(ctx context.Context, namespace string, about types.UID, t told[*corev1.Event]) {
	selector := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(about)).String()}
	run(ctx, w, w.client.CoreV1().Events(namespace), selector, t)
}

// resource is what of a typed client a watch needs.
type resource[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func run[T metav1.Object, L runtime.Object](ctx context.Context, w *watches, client resource[L], selector metav1.ListOptions, t told[T]) {
	// A reflector says what its watch meets in a log at best; here it is told.
	failed := func(err error) {
		if err != nil {
			w.do(ctx, func() { t.lost(err) })
		}
	}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = selector.LabelSelector, selector.FieldSelector
			list, err := client.List(ctx, o)
			failed(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector = selector.LabelSelector, selector.FieldSelector
			watch, err := client.Watch(ctx, o)
			failed(err)
			if err == nil {
				w.do(ctx, t.back)
			}
			return watch, err
		},
	}
	var expected T
	silent := logr.Discard()
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(source, w.client), expected,
		&teller[T]{ctx: ctx, watches: w, told: t},
		cache.ReflectorOptions{
			Name:   "jobrun",
			Logger: &silent,
			// Whoever waits at a terminal is told of an API's return within seconds.
			Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 5, Cap: 3 * time.Second},
		})
	w.ends.Go(func() { reflector.RunWithContext(logr.NewContext(ctx, silent)) })
}

// teller is the store that a reflector fills: it passes on what it is told, and
// remembers what there is, so as to tell what went while nothing could be watched.
type teller[T metav1.Object] struct {
	ctx     context.Context
	watches *watches
	told    told[T]
	there   map[types.UID]T
	synced  bool
}

// Add tells of a new object.
func (s *teller[T]) Add(object any) error { return s.Update(object) }

// Update tells of a change.
func (s *teller[T]) Update(object any) error {
	if o, ok := object.(T); ok {
		s.see(o)
	}
	return nil
}

// Delete tells of a deletion.
func (s *teller[T]) Delete(object any) error {
	if o, ok := object.(T); ok {
		delete(s.there, o.GetUID())
		s.watches.do(s.ctx, func() { s.told.gone(o) })
	}
	return nil
}

// Replace tells of all that there is, and of what isn't any more.
func (s *teller[T]) Replace(objects []any, _ string) error {
	before := s.there
	s.there = map[types.UID]T{}
	for _, object := range objects {
		if o, ok := object.(T); ok {
			delete(before, o.GetUID())
			s.see(o)
		}
	}
	for _, o := range before {
		s.watches.do(s.ctx, func() { s.told.gone(o) })
	}
	if !s.synced {
		s.synced = true
		s.watches.do(s.ctx, s.told.synced)
	}
	return nil
}

// Resync has nothing to do.
func (s *teller[T]) Resync() error { return nil }

func (s *teller[T]) see(o T) {
	if s.there == nil {
		s.there = map[types.UID]T{}
	}
	s.there[o.GetUID()] = o
	if s.told.over != nil && s.told.over(o) {
		delete(s.there, o.GetUID())
	}
	s.watches.do(s.ctx, func() { s.told.seen(o) })
}
