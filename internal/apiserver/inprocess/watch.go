package inprocess

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

// watch starts a watch that lasts until it is stopped, ctx ends, its timeout passes, or the registry ends it.
func (e *endpoint) watch(ctx context.Context, c call, opts metav1.ListOptions, newObject func() runtime.Object) (watch.Interface, error) {
	ctx, cancel := watchContext(ctx, opts.TimeoutSeconds)
	w := &watcher{cancel: cancel, done: ctx.Done(), result: make(chan watch.Event)}
	var source watch.Interface
	err := e.do(ctx, c, func(reqCtx context.Context) error {
		selected, err := e.listOptions(opts)
		if err != nil {
			return err
		}
		source, err = e.watcher.Watch(reqCtx, selected)
		return err
	})
	if err != nil {
		cancel()
		return nil, err
	}
	go w.run(source, func(ev watch.Event) (watch.Event, error) { return e.toClientEvent(ctx, c, ev, newObject) })
	return w, nil
}

func watchContext(ctx context.Context, timeoutSeconds *int64) (context.Context, context.CancelFunc) {
	if timeoutSeconds == nil || *timeoutSeconds <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(*timeoutSeconds)*time.Second)
}

// watcher implements watch.Interface on a registry's watch.
type watcher struct {
	cancel context.CancelFunc
	done   <-chan struct{}
	result chan watch.Event
}

// Stop ends the watch. It may be called any number of times, from any goroutine; the result channel is closed soon after.
func (w *watcher) Stop() { w.cancel() }

// ResultChan is unbuffered, as client-go's: an event not yet received is one that Stop drops.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// run passes events on until either side ends. An event that can't be converted becomes an Error event, the last one.
func (w *watcher) run(source watch.Interface, convert func(watch.Event) (watch.Event, error)) {
	defer close(w.result)
	defer w.cancel()
	defer source.Stop()
	for {
		select {
		case <-w.done:
			return
		case ev, ok := <-source.ResultChan():
			if !ok {
				return
			}
			ev, err := convert(ev)
			if err != nil {
				ev = errorEvent(err)
			}
			select {
			case <-w.done:
				return
			case w.result <- ev:
			}
			if err != nil {
				return
			}
		}
	}
}

// toClientEvent gives a watcher its own v1 copy of an event.
func (e *endpoint) toClientEvent(ctx context.Context, c call, ev watch.Event, newObject func() runtime.Object) (_ watch.Event, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = e.panicked(ctx, c, r)
		}
	}()
	if status, ok := ev.Object.(*metav1.Status); ok {
		status = status.DeepCopy()
		status.TypeMeta = metav1.TypeMeta{} // as client-go's decoders leave it
		return watch.Event{Type: ev.Type, Object: status}, nil
	}
	obj := newObject()
	if err := e.toClient(private(ev.Object), obj); err != nil {
		return watch.Event{}, err
	}
	return watch.Event{Type: ev.Type, Object: obj}, nil
}

// errorEvent reports a watch's failure the way the server does in the stream.
func errorEvent(err error) watch.Event {
	status := responsewriters.ErrorToAPIStatus(err)
	status.TypeMeta = metav1.TypeMeta{}
	return watch.Event{Type: watch.Error, Object: status}
}
