package controllers_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/go-logr/logr"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/jobs"
)

// timeline is a cluster in a synctest bubble, where hours take no time: upstream's CronJob controller, errand's Job engine with its TTL, and pods that
// succeed ten seconds after their creation. Its API is client-go's fake, with versions and UIDs.
type timeline struct {
	t        *testing.T
	client   *fake.Clientset
	stop     context.CancelFunc
	running  sync.WaitGroup
	versions atomic.Int64

	mu      sync.Mutex
	created []time.Time // of Jobs, by the clock
}

func newTimeline(t *testing.T) *timeline {
	klog.SetLogger(logr.Discard())
	l := &timeline{t: t, client: fake.NewSimpleClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})}
	l.client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		obj := action.(clienttesting.CreateAction).GetObject()
		m := l.stamp(obj)
		m.SetUID(types.UID("uid-" + m.GetResourceVersion()))
		m.SetCreationTimestamp(metav1.Now())
		l.noteJob(obj)
		return false, nil, nil
	})
	l.client.PrependReactor("update", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		l.stamp(action.(clienttesting.UpdateAction).GetObject())
		return false, nil, nil
	})
	l.client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		list, err := l.list(action.(clienttesting.ListActionImpl))
		return true, list, err
	})
	l.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		pod, err := l.patchPod(action.(clienttesting.PatchAction))
		return true, pod, err
	})
	return l
}

// stamp gives an object that is about to be stored its version.
func (l *timeline) stamp(obj runtime.Object) metav1.Object {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err) // all that the controllers write are API objects
	}
	m.SetResourceVersion(strconv.FormatInt(l.versions.Add(1), 10))
	return m
}

// list returns all objects of a kind, as of a version.
func (l *timeline) list(action clienttesting.ListActionImpl) (runtime.Object, error) {
	version := strconv.FormatInt(l.versions.Load(), 10)
	list, err := l.client.Tracker().List(action.GetResource(), action.Kind, action.GetNamespace())
	if err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	m.SetResourceVersion(version)
	return list, nil
}

// patchPod applies a JSON patch.
func (l *timeline) patchPod(action clienttesting.PatchAction) (*corev1.Pod, error) {
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	stored, err := l.client.Tracker().Get(pods, action.GetNamespace(), action.GetName())
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(stored)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(action.GetPatch())
	if err != nil {
		return nil, err
	}
	after, err := patch.Apply(before)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(after, pod); err != nil {
		return nil, err
	}
	l.stamp(pod)
	return pod, l.client.Tracker().Update(pods, pod, action.GetNamespace())
}

// noteJob gives a new Job what the API server gives it.
func (l *timeline) noteJob(obj runtime.Object) {
	job, ok := obj.(*batchv1.Job)
	if !ok {
		return
	}
	owner := map[string]string{batchv1.ControllerUidLabel: string(job.UID)}
	job.Spec.Selector, job.Spec.Template.Labels = &metav1.LabelSelector{MatchLabels: owner}, owner
	job.Spec.Completions, job.Spec.Parallelism, job.Spec.BackoffLimit = ptr.To[int32](1), ptr.To[int32](1), ptr.To[int32](6)
	_, err := l.client.Tracker().Get(batchv1.SchemeGroupVersion.WithResource("jobs"), "default", job.Name)
	if err == nil {
		return // it will be refused: the controller hasn't seen yet what it has done
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created = append(l.created, time.Now().UTC())
}

// run starts the controllers; end stops them and waits.
func (l *timeline) run() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	l.stop = cancel
	factory := informers.NewSharedInformerFactory(l.client, 0)
	engine, err := jobs.New(jobs.Config{Client: l.client, Jobs: factory.Batch().V1().Jobs(), Pods: factory.Core().V1().Pods()})
	if err != nil {
		l.t.Fatal(err)
	}
	crons, err := cronjob.NewControllerV2(ctx, factory.Batch().V1().Jobs(), factory.Batch().V1().CronJobs(), l.client)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: l.endLater}); err != nil {
		l.t.Fatal(err)
	}
	factory.StartWithContext(ctx)
	l.running.Go(func() { crons.Run(ctx, 2) })
	l.running.Go(func() {
		if err := engine.Run(ctx); err != nil {
			l.t.Error(err)
		}
	})
	l.running.Go(func() {
		<-ctx.Done()
		factory.Shutdown()
	})
}

func (l *timeline) end() {
	l.stop()
	l.running.Wait()
}

func (l *timeline) endLater(obj any) {
	pod := obj.(*corev1.Pod)
	if pod.Status.Phase == corev1.PodSucceeded {
		return
	}
	time.AfterFunc(10*time.Second, func() {
		// The newest version: the engine may have changed the pod.
		pod, err := l.client.CoreV1().Pods(pod.Namespace).Get(context.Background(), pod.Name, metav1.GetOptions{})
		if err != nil {
			return // it went with its Job
		}
		pod.Status.Phase = corev1.PodSucceeded
		if _, err := l.client.CoreV1().Pods(pod.Namespace).UpdateStatus(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
			l.t.Error(err)
		}
	})
}

// schedule makes a CronJob whose Jobs are kept for ttl seconds.
func (l *timeline) schedule(schedule, zone string, ttl int32) {
	l.t.Helper()
	cron := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "cron", Namespace: "default"},
		Spec: batchv1.CronJobSpec{
			Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent,
			SuccessfulJobsHistoryLimit: ptr.To[int32](1000), FailedJobsHistoryLimit: ptr.To[int32](1),
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
				TTLSecondsAfterFinished: &ttl,
				Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "work", Image: "busybox"}},
				}},
			}},
		},
	}
	if zone != "" {
		cron.Spec.TimeZone = &zone
	}
	if _, err := l.client.BatchV1().CronJobs("default").Create(l.t.Context(), cron, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// jobs returns the Jobs that exist, and how many of them have succeeded.
func (l *timeline) jobs() (names []string, complete int) {
	l.t.Helper()
	list, err := l.client.BatchV1().Jobs("default").List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
		complete += int(list.Items[i].Status.Succeeded)
	}
	return names, complete
}

func (l *timeline) startsAt() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var at []string
	for _, t := range l.created {
		at = append(at, t.Format("01-02 15:04:05"))
	}
	return at
}

// An hour of a CronJob: sixty Jobs, on the minute, each gone 95 seconds after its end.
func TestHourOfCronJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t)
		l.run()
		defer l.end()
		l.schedule("* * * * *", "", 95)
		time.Sleep(time.Hour + 30*time.Second)
		starts := l.startsAt()
		if len(starts) != 60 || starts[0] != "01-01 00:01:00" || starts[59] != "01-01 01:00:00" {
			t.Fatalf("the Jobs were created at %v", starts)
		}
		// At 1:00:30 those of 0:59 and 1:00 are there; that of 0:58 went at 0:59:45.
		if names, complete := l.jobs(); len(names) != 2 || complete != 2 {
			t.Errorf("there are %v, %d of them complete", names, complete)
		}
		time.Sleep(5 * time.Minute)
		if starts := l.startsAt(); len(starts) != 65 {
			t.Errorf("five minutes later it was %d Jobs", len(starts))
		}
	})
}

// A machine that slept, or was off, catches up with one Job, not with all that it missed.
func TestCronJobAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t)
		l.run()
		l.schedule("* * * * *", "", 20)
		time.Sleep(3*time.Minute + 30*time.Second)
		l.end()
		time.Sleep(time.Hour)
		l.run()
		defer l.end()
		time.Sleep(time.Minute)
		want := []string{"01-01 00:01:00", "01-01 00:02:00", "01-01 00:03:00", "01-01 01:03:30", "01-01 01:04:00"}
		if got := l.startsAt(); !slices.Equal(got, want) {
			t.Errorf("the Jobs were created at %v, want %v", got, want)
		}
	})
}

// A daily Job at half past two, in a place where that hour is left out on a day in spring and comes twice on one in autumn: on the former the Job
// doesn't run, on the latter twice, as Kubernetes has it.
func TestCronJobInSummerTime(t *testing.T) {
	for _, tc := range []struct {
		name, from string
		want       []string
	}{
		{"spring", "2000-03-24T12:00:00Z", []string{"03-25 01:30:00", "03-27 00:30:00", "03-28 00:30:00"}},
		{"autumn", "2000-10-27T12:00:00Z", []string{"10-28 00:30:00", "10-29 00:30:00", "10-29 01:30:00", "10-30 01:30:00", "10-31 01:30:00"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from, err := time.Parse(time.RFC3339, tc.from)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Until(from))
				l := newTimeline(t)
				l.run()
				defer l.end()
				l.schedule("30 2 * * *", "Europe/Berlin", 60)
				time.Sleep(4 * 24 * time.Hour)
				if got := l.startsAt(); !slices.Equal(got, tc.want) {
					t.Errorf("the Jobs were created at %v, want %v", got, tc.want)
				}
			})
		})
	}
}
