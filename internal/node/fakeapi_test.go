package node

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/node/fakecri"
)

var podResource = schema.GroupResource{Resource: "pods"}

// fakeAPI serves pods with those manners of the API server that a node depends
// on and client-go's fake doesn't have: resource versions, graceful deletion,
// finalizers, preconditions. It outlives its clients.
type fakeAPI struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	rv      uint64
	pods    map[types.NamespacedName]*v1.Pod
	history []watch.Event
	changed chan struct{} // closed and replaced at every change
	down    bool
	refused int // calls while down
	busy    int // patches yet to be answered by a conflict
	patches int
}

func newFakeAPI(clk clock.PassiveClock) *fakeAPI {
	return &fakeAPI{clock: clk, pods: map[types.NamespacedName]*v1.Pod{}, changed: make(chan struct{})}
}

// client returns a clientset for one agent: its writes take part in the life of
// the agent's connection to the runtime.
func (a *fakeAPI) client(agent *fakecri.Client) *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("*", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		var obj runtime.Object
		call := func() (err error) {
			obj, err = a.react(action)
			return err
		}
		switch action.GetVerb() {
		case "patch", "delete":
			return true, obj, agent.Act(action.GetVerb(), call)
		}
		err := call()
		return true, obj, err
	})
	client.PrependWatchReactor("pods", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := a.watch(action.(clienttesting.WatchActionImpl).ListOptions.ResourceVersion)
		return true, w, err
	})
	return client
}

func (a *fakeAPI) react(action clienttesting.Action) (runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		a.refused++
		return nil, apierrors.NewInternalError(errors.New("the API is down"))
	}
	switch act := action.(type) {
	case clienttesting.ListAction:
		list := &v1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: a.version()}}
		for _, pod := range a.pods {
			list.Items = append(list.Items, *pod.DeepCopy())
		}
		return list, nil
	case clienttesting.PatchAction:
		return a.patch(act)
	case clienttesting.DeleteActionImpl:
		return nil, a.delete(types.NamespacedName{Namespace: act.Namespace, Name: act.Name}, act.DeleteOptions)
	case clienttesting.GetAction:
		pod := a.pods[types.NamespacedName{Namespace: act.GetNamespace(), Name: act.GetName()}]
		if pod == nil {
			return nil, apierrors.NewNotFound(podResource, act.GetName())
		}
		return pod.DeepCopy(), nil
	}
	return nil, errors.New("unexpected " + action.GetVerb())
}

func (a *fakeAPI) version() string { return strconv.FormatUint(a.rv, 10) }

// record gives the pod a new version and tells watchers. a.mu must be held.
func (a *fakeAPI) record(kind watch.EventType, pod *v1.Pod) {
	a.rv++
	pod.ResourceVersion = a.version()
	a.history = append(a.history, watch.Event{Type: kind, Object: pod.DeepCopy()})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *fakeAPI) patch(act clienttesting.PatchAction) (*v1.Pod, error) {
	key := types.NamespacedName{Namespace: act.GetNamespace(), Name: act.GetName()}
	pod := a.pods[key]
	if pod == nil {
		return nil, apierrors.NewNotFound(podResource, act.GetName())
	}
	var precondition struct{ Metadata struct{ UID types.UID } }
	old, err := json.Marshal(pod)
	if err := errors.Join(err, json.Unmarshal(act.GetPatch(), &precondition)); err != nil {
		return nil, err
	}
	if uid := precondition.Metadata.UID; uid != pod.UID {
		return nil, apierrors.NewConflict(podResource, pod.Name, errors.New("UID in precondition: "+string(uid)))
	}
	if a.busy > 0 {
		a.busy--
		return nil, apierrors.NewConflict(podResource, pod.Name, errors.New("the object has been modified"))
	}
	patched, err := strategicpatch.StrategicMergePatch(old, act.GetPatch(), v1.Pod{})
	if err != nil {
		return nil, err
	}
	next := &v1.Pod{}
	if err := json.Unmarshal(patched, next); err != nil {
		return nil, err
	}
	a.patches++
	pod = pod.DeepCopy()
	pod.Status = next.Status
	a.pods[key] = pod
	a.record(watch.Modified, pod)
	return pod.DeepCopy(), nil
}

func (a *fakeAPI) delete(key types.NamespacedName, opts metav1.DeleteOptions) error {
	pod := a.pods[key]
	if pod == nil {
		return apierrors.NewNotFound(podResource, key.Name)
	}
	if p := opts.Preconditions; p != nil && p.UID != nil && *p.UID != pod.UID {
		return apierrors.NewConflict(podResource, key.Name, errors.New("UID"))
	}
	pod = pod.DeepCopy()
	grace := *pod.Spec.TerminationGracePeriodSeconds
	if opts.GracePeriodSeconds != nil {
		grace = *opts.GracePeriodSeconds
	}
	at := metav1.NewTime(a.clock.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second))
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &at, &grace
	pod.Generation++
	if grace == 0 && len(pod.Finalizers) == 0 {
		delete(a.pods, key)
		a.record(watch.Deleted, pod)
		return nil
	}
	a.pods[key] = pod
	a.record(watch.Modified, pod)
	return nil
}

// watch delivers what happened after the version, and what will happen.
func (a *fakeAPI) watch(since string) (watch.Interface, error) {
	rv, err := strconv.ParseUint(since, 10, 64)
	if err != nil && since != "" {
		return nil, err
	}
	ch := make(chan watch.Event)
	w := watch.NewProxyWatcher(ch)
	go func() {
		defer close(ch)
		next := 0
		for {
			a.mu.Lock()
			events, changed := slices.Clone(a.history[next:]), a.changed
			next = len(a.history)
			a.mu.Unlock()
			for _, e := range events {
				if v, _ := strconv.ParseUint(e.Object.(*v1.Pod).ResourceVersion, 10, 64); v <= rv {
					continue
				}
				select {
				case ch <- watch.Event{Type: e.Type, Object: e.Object.DeepCopyObject()}:
				case <-w.StopChan():
					return
				}
			}
			select {
			case <-changed:
			case <-w.StopChan():
				return
			}
		}
	}()
	return w, nil
}

// What tests do, as users and controllers.

func (a *fakeAPI) create(pod *v1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pod = pod.DeepCopy()
	a.pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] = pod
	a.record(watch.Added, pod)
}

func (a *fakeAPI) change(pod *v1.Pod, change func(*v1.Pod)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	next := a.pods[key].DeepCopy()
	change(next)
	next.Generation++
	a.pods[key] = next
	a.record(watch.Modified, next)
}

func (a *fakeAPI) remove(pod *v1.Pod, grace *int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.delete(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, metav1.DeleteOptions{GracePeriodSeconds: grace})
}

// get returns the pod, nil if there is none, and a channel that is closed when
// something changes.
func (a *fakeAPI) get(pod *v1.Pod) (*v1.Pod, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}].DeepCopy(), a.changed
}

func (a *fakeAPI) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

// attempts returns how often agents called in vain.
func (a *fakeAPI) attempts() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// written returns how many statuses were written.
func (a *fakeAPI) written() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.patches
}
