package jobs

import (
	"context"
	"strconv"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	batchlisters "k8s.io/client-go/listers/batch/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// Real informers on a fakeAPI.

type fakeJobInformer struct{ cache.SharedIndexInformer }

func (i fakeJobInformer) Informer() cache.SharedIndexInformer { return i.SharedIndexInformer }
func (i fakeJobInformer) Lister() batchlisters.JobLister {
	return batchlisters.NewJobLister(i.GetIndexer())
}

type fakePodInformer struct{ cache.SharedIndexInformer }

func (i fakePodInformer) Informer() cache.SharedIndexInformer { return i.SharedIndexInformer }
func (i fakePodInformer) Lister() corelisters.PodLister {
	return corelisters.NewPodLister(i.GetIndexer())
}

// feed hands the API's log to watchers.
type feed struct {
	api  *fakeAPI
	more *sync.Cond
}

func newFeed(api *fakeAPI) *feed {
	f := &feed{api: api, more: sync.NewCond(&api.mu)}
	api.wrote = func(_, _ any) { f.more.Broadcast() }
	return f
}

// listWatch lists and watches one kind of object. It doesn't know streaming lists.
type listWatch struct {
	*feed
	kind runtime.Object
}

func (listWatch) IsWatchListSemanticsUnSupported() bool { return true }

func (l listWatch) List(metav1.ListOptions) (runtime.Object, error) {
	l.api.mu.Lock()
	defer l.api.mu.Unlock()
	meta := metav1.ListMeta{ResourceVersion: strconv.Itoa(l.api.revision)}
	if _, ok := l.kind.(*batchv1.Job); ok {
		list := &batchv1.JobList{ListMeta: meta}
		for _, j := range l.api.jobs {
			list.Items = append(list.Items, *j)
		}
		return list, nil
	}
	list := &corev1.PodList{ListMeta: meta}
	for _, p := range l.api.pods {
		list.Items = append(list.Items, *p)
	}
	return list, nil
}

func (l listWatch) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	from, err := strconv.Atoi(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &feedWatch{events: make(chan watch.Event), cancel: func() { cancel(); l.more.Broadcast() }}
	go l.stream(ctx, w, from)
	return w, nil
}

func (l listWatch) stream(ctx context.Context, w *feedWatch, from int) {
	defer close(w.events)
	for at := 0; ; at++ {
		l.api.mu.Lock()
		for at >= len(l.api.log) && ctx.Err() == nil {
			l.more.Wait()
		}
		if ctx.Err() != nil {
			l.api.mu.Unlock()
			return
		}
		c := l.api.log[at]
		l.api.mu.Unlock()
		event, ok := l.event(c)
		if !ok || c.revision <= from {
			continue
		}
		select {
		case w.events <- event:
		case <-ctx.Done():
			return
		}
	}
}

func (l listWatch) event(c change) (watch.Event, bool) {
	_, wantJobs := l.kind.(*batchv1.Job)
	pick := func(v any) runtime.Object {
		switch obj := v.(type) {
		case *batchv1.Job:
			if wantJobs {
				return obj
			}
		case *corev1.Pod:
			if !wantJobs {
				return obj
			}
		}
		return nil
	}
	old, obj := pick(c.old), pick(c.new)
	switch {
	case obj != nil && old == nil:
		return watch.Event{Type: watch.Added, Object: obj}, true
	case obj != nil:
		return watch.Event{Type: watch.Modified, Object: obj}, true
	case old != nil:
		return watch.Event{Type: watch.Deleted, Object: old}, true
	default:
		return watch.Event{}, false
	}
}

type feedWatch struct {
	events chan watch.Event
	cancel func()
}

func (w *feedWatch) Stop()                          { w.cancel() }
func (w *feedWatch) ResultChan() <-chan watch.Event { return w.events }

func (f *feed) informers() (fakeJobInformer, fakePodInformer) {
	return fakeJobInformer{cache.NewSharedIndexInformer(listWatch{f, &batchv1.Job{}}, &batchv1.Job{}, 0, cache.Indexers{})},
		fakePodInformer{cache.NewSharedIndexInformer(listWatch{f, &corev1.Pod{}}, &corev1.Pod{}, 0, cache.Indexers{})}
}
