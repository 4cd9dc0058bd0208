package jobrun

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Upstream's handling of errors keeps the last one's time for the whole process, and
// sleeps by it; each test here has a clock of its own.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	m.Run()
}

// world is an API with a Job's objects, which a test changes as controllers and a node
// would. After each change all that follows from it has happened.
type world struct {
	t      *testing.T
	client *fake.Clientset
	kept   KeptLog

	mu        sync.Mutex
	logs      map[string][]string // by pod/container: what each request gets, the last of them again and again
	requests  []corev1.PodLogOptions
	deletions []metav1.DeleteOptions
	output    *Output
	out, err  bytes.Buffer // held by output's lock
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	w := &world{t: t, client: fake.NewClientset(objects...), logs: map[string][]string{}}
	w.output = NewOutput(&w.out, &w.err, "")
	w.client.PrependReactor("get", "pods/log", func(a clienttesting.Action) (bool, runtime.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		options := a.(clienttesting.GenericAction).GetValue().(*corev1.PodLogOptions)
		w.requests = append(w.requests, *options)
		answers := w.logs[options.Container]
		if len(answers) == 0 {
			return true, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, options.Container)
		}
		if len(answers) > 1 {
			w.logs[options.Container] = answers[1:]
		}
		return true, &runtime.Unknown{Raw: []byte(answers[0])}, nil
	})
	w.client.PrependReactor("delete", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.deletions = append(w.deletions, a.(clienttesting.DeleteActionImpl).DeleteOptions)
		return true, nil, nil // the test's to carry out
	})
	return w
}

// lines is a log as the API has it.
func lines(numbered ...string) string {
	var b strings.Builder
	for i, line := range numbered {
		fmt.Fprintf(&b, "2000-01-01T00:00:%02d.000000001Z %s", i, line)
	}
	return b.String()
}

// after is a log so many hours later.
func after(log string, hours int) string {
	return strings.ReplaceAll(log, "T00:", fmt.Sprintf("T%02d:", hours))
}

func (w *world) set(objects ...runtime.Object) {
	w.t.Helper()
	for _, o := range objects {
		gvr := resourceOf(o)
		err := w.client.Tracker().Update(gvr, o, "default")
		if apierrors.IsNotFound(err) {
			err = w.client.Tracker().Create(gvr, o, "default")
		}
		if err != nil {
			w.t.Fatal(err)
		}
		synctest.Wait()
	}
}

func (w *world) remove(o runtime.Object) {
	w.t.Helper()
	if err := w.client.Tracker().Delete(resourceOf(o), "default", o.(metav1.Object).GetName()); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func resourceOf(o runtime.Object) schema.GroupVersionResource {
	switch o.(type) {
	case *batchv1.Job:
		return batchv1.SchemeGroupVersion.WithResource("jobs")
	case *corev1.Pod:
		return corev1.SchemeGroupVersion.WithResource("pods")
	case *corev1.Event:
		return corev1.SchemeGroupVersion.WithResource("events")
	}
	panic(fmt.Sprintf("no resource of %T", o))
}

// wantSaid checks what has been said since the last time, line by line.
func (w *world) wantSaid(want ...string) {
	w.t.Helper()
	w.wantIn(&w.err, want...)
}

// wantLogged does so with the logs.
func (w *world) wantLogged(want ...string) {
	w.t.Helper()
	w.wantIn(&w.out, want...)
}

func (w *world) wantIn(b *bytes.Buffer, want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.output.mu.Lock()
	defer w.output.mu.Unlock()
	var all string
	if len(want) > 0 {
		all = strings.Join(want, "\n") + "\n"
	}
	if b.String() != all {
		w.t.Errorf("it said\n%swant\n%s", b.String(), all)
	}
	b.Reset()
}
