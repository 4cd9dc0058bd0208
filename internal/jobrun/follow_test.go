package jobrun

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	fakerest "k8s.io/client-go/rest/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// followed is a Follow under way.
type followed struct {
	*world
	interrupt context.CancelFunc
	end       End
	failure   error
	done      chan struct{}
}

func follow(t *testing.T, w *world, job *batchv1.Job) *followed {
	ctx, cancel := context.WithCancel(t.Context())
	f := &followed{world: w, interrupt: cancel, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.end, f.failure = Follow(ctx, w.client, w.output, w.kept, job)
	}()
	synctest.Wait()
	return f
}

func (f *followed) wantEnd(state State, code int) {
	f.t.Helper()
	synctest.Wait()
	select {
	case <-f.done:
	default:
		f.t.Fatal("it goes on")
	}
	if f.failure != nil || f.end.State != state || f.end.Code != code {
		f.t.Errorf("the end is %+v, %v; want state %d and code %d", f.end, f.failure, state, code)
	}
}

func (f *followed) wantGoesOn() {
	f.t.Helper()
	synctest.Wait()
	select {
	case <-f.done:
		f.t.Fatalf("it ended: %+v, %v", f.end, f.failure)
	default:
	}
}

func TestFollow(t *testing.T) {
	job := makeJob("a")
	complete := makeJob("a", with(batchv1.JobComplete, "", ""))
	failed := makeJob("a", with(batchv1.JobFailed, "BackoffLimitExceeded", "too many"))
	pod := func(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
		return makePod(job, name, append([]func(*corev1.Pod){onNode}, edit...)...)
	}
	for name, play := range map[string]func(*testing.T, *world){
		"success": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.logs["main"] = []string{lines("one\n", "no end")}
			w.set(pod("p", phase(corev1.PodRunning), container(running())), pod("p", phase(corev1.PodSucceeded), container(terminated(0, 1))))
			f.wantGoesOn()
			w.set(complete)
			f.wantEnd(Complete, 0)
			if w.out.String() != "one\nno end" {
				t.Errorf("the log isn't passed on as it is: %q", w.out.String())
			}
			w.wantSaid()
		},
		"failure, of which another pod came after": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.logs["main"] = []string{lines("one\n")}
			w.set(pod("p", phase(corev1.PodFailed), container(terminated(7, 1))))
			w.wantLogged("one")
			w.set(pod("q", phase(corev1.PodFailed), container(terminated(8, 2))), failed)
			f.wantEnd(Failed, 8)
			w.wantLogged("[q] one")
			w.wantSaid("pod p failed: container main ended with exit code 7", "pod q failed: container main ended with exit code 8")
		},
		"failure without a container's": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.set(makeJob("a", with(batchv1.JobFailed, "DeadlineExceeded", "too long")))
			f.wantEnd(Failed, 0)
			if f.end.Reason != "DeadlineExceeded" || f.end.Message != "too long" {
				t.Errorf("the end is %+v", f.end)
			}
		},
		"the Job's end is seen before its pod's": func(t *testing.T, w *world) {
			w.logs["main"] = []string{lines("one\n")}
			if err := w.client.Tracker().Add(pod("p", phase(corev1.PodFailed), container(terminated(7, 1)))); err != nil {
				t.Fatal(err)
			}
			w.client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) { return true, watch.NewFake(), nil })
			f := follow(t, w, failed)
			f.wantEnd(Failed, 7)
			w.wantLogged("one")
		},
		"several pods by plan": func(t *testing.T, w *world) {
			two := makeJob("a", func(j *batchv1.Job) { j.Spec.Completions = ptr.To[int32](2) })
			f := follow(t, w, two)
			w.logs["main"] = []string{lines("no end")}
			w.set(pod("p", phase(corev1.PodSucceeded), container(terminated(0, 1))), complete)
			f.wantEnd(Complete, 0)
			w.wantLogged("[p] no end")
		},
		"another's pod": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.set(makePod(job, "p", func(p *corev1.Pod) { p.OwnerReferences = nil }, container(terminated(7, 1)), phase(corev1.PodFailed)), failed)
			f.wantEnd(Failed, 0)
			w.wantSaid()
		},
		"deleted": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.remove(job)
			f.wantEnd(Deleted, 0)
		},
		"deleted as soon as it had ended": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.set(pod("p", phase(corev1.PodFailed), container(terminated(7, 1))))
			w.client.PrependReactor("list", "pods", clienttesting.ObjectReaction(w.client.Tracker()))
			w.set(failed)
			w.remove(job)
			f.wantEnd(Failed, 7)
		},
		"gone before it is watched": func(t *testing.T, w *world) {
			w.remove(job)
			follow(t, w, job).wantEnd(Deleted, 0)
		},
		"replaced by another of its name": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.set(makeJob("a", func(j *batchv1.Job) { j.UID = "another" }))
			f.wantEnd(Deleted, 0)
		},
		"the container is lost with its node": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.logs["main"] = []string{lines("one\n")}
			w.set(pod("p", phase(corev1.PodRunning), container(running())))
			lost := terminated(137, 0)
			*lost.State.Terminated = corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown"}
			w.set(pod("p", phase(corev1.PodFailed), container(lost)), failed)
			f.wantEnd(Failed, 137)
			w.wantLogged("one")
		},
		"a container was lost, and runs again": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.logs["main"] = []string{lines("one\n"), lines("one\n"), after(lines("two\n"), 1)}
			w.set(pod("p", phase(corev1.PodRunning), container(running())))
			again := restarted(running(), 1, 137, 0)
			*again.LastTerminationState.Terminated = corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown"}
			w.set(pod("p", phase(corev1.PodRunning), container(again)))
			w.wantLogged("one", "two")
			again.State = terminated(0, 2).State
			w.set(pod("p", phase(corev1.PodSucceeded), container(again)), complete)
			f.wantEnd(Complete, 137) // of which nobody asks
		},
		"interrupted": func(t *testing.T, w *world) {
			f := follow(t, w, job)
			w.logs["main"] = []string{""}
			w.set(pod("p", phase(corev1.PodRunning), container(running())))
			delete(w.logs, "main")
			f.interrupt()
			f.wantGoesOn()
			if len(w.deletions) != 1 || *w.deletions[0].PropagationPolicy != metav1.DeletePropagationForeground || *w.deletions[0].Preconditions.UID != job.UID {
				t.Fatalf("deletions: %+v", w.deletions)
			}
			w.set(makeJob("a", func(j *batchv1.Job) { j.DeletionTimestamp = ptr.To(at(0)) }))
			w.set(pod("p", phase(corev1.PodFailed), container(terminated(143, 1)), deleted))
			w.remove(job)
			f.wantEnd(Interrupted, 0)
			w.wantSaid("deleting job/a and its pods; a second Ctrl-C leaves at once")
		},
		"suspended, resumed": func(t *testing.T, w *world) {
			f := follow(t, w, makeJob("a", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }))
			w.wantSaid(`job/a is suspended, and runs once somebody resumes it: kubectl patch job a -n default -p '{"spec":{"suspend":false}}'`)
			w.set(complete)
			f.wantEnd(Complete, 0)
		},
		"the Job may not be watched": func(t *testing.T, w *world) {
			forbidden := apierrors.NewForbidden(schema.GroupResource{Group: "batch", Resource: "jobs"}, "a", errors.New("no"))
			w.client.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) { return true, nil, forbidden })
			f := follow(t, w, job)
			if <-f.done; !apierrors.IsForbidden(f.failure) {
				t.Errorf("error %v", f.failure)
			}
		},
		"its pods may not be watched": func(t *testing.T, w *world) {
			forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
			w.client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) { return true, nil, forbidden })
			f := follow(t, w, job)
			time.Sleep(time.Second) // of the test's clock: it has been tried more than once
			w.wantSaid(`the pods of job/a can't be watched, so that there are no logs: pods is forbidden: no`)
			w.set(complete)
			f.wantEnd(Complete, 0)
		},
		"the API is away": func(t *testing.T, w *world) {
			var away atomic.Bool
			away.Store(true)
			w.client.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) {
				return away.Load(), nil, &url.Error{Op: "Get", URL: "https://long", Err: errors.New("connection refused")}
			})
			f := follow(t, w, job)
			time.Sleep(time.Second)
			w.wantSaid("the API doesn't answer, and is tried again: connection refused")
			away.Store(false)
			time.Sleep(5 * time.Second)
			w.set(complete)
			f.wantEnd(Complete, 0)
			w.wantSaid("the API answers again", "job/a has no pods yet: no Job controller has made any")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, newWorld(t, job)) })
		})
	}
}

// silentLogs is an API whose nodes are lost: a log that is asked for never comes.
type silentLogs struct{ *fake.Clientset }

func (c silentLogs) CoreV1() corev1client.CoreV1Interface { return silentCore{c.Clientset.CoreV1()} }

type silentCore struct{ corev1client.CoreV1Interface }

func (c silentCore) Pods(namespace string) corev1client.PodInterface {
	return silentPods{c.CoreV1Interface.Pods(namespace)}
}

type silentPods struct{ corev1client.PodInterface }

func (silentPods) GetLogs(string, *corev1.PodLogOptions) *rest.Request {
	client := &fakerest.RESTClient{
		NegotiatedSerializer: scheme.Codecs.WithoutConversion(), GroupVersion: corev1.SchemeGroupVersion,
		Client: fakerest.CreateHTTPClient(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}),
	}
	return client.Request()
}

// A Job whose pods are gone has ended, whatever becomes of their logs.
func TestFollowLeavesLogsOfLostNodes(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		f := &followed{world: w, done: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			defer close(f.done)
			f.end, f.failure = Follow(ctx, silentLogs{w.client}, w.output, nil, job)
		}()
		synctest.Wait()
		for i := range 20 {
			pod := makePod(job, fmt.Sprint("p", i), onNode, phase(corev1.PodRunning), container(running()))
			w.set(pod)
			w.remove(pod)
		}
		w.set(makeJob("a", with(batchv1.JobFailed, "DeadlineExceeded", "too long")))
		f.wantGoesOn()
		time.Sleep(goneGrace)
		f.wantEnd(Failed, 0)
	})
}

// What holds a Job up is said after two seconds, once, and not if it is over before.
func TestFollowTellsHoldUps(t *testing.T) {
	job := makeJob("a")
	pending := makePod(job, "p", onNode, container(waiting("ContainerCreating", "")))
	pulling := event("Normal", "Pulling", `Pulling image "busybox"`, 0)
	pulling.InvolvedObject.UID = pending.UID
	for name, play := range map[string]func(*testing.T, *world){
		"not for two seconds": func(t *testing.T, w *world) {
			follow(t, w, job)
			w.set(pending)
			time.Sleep(holdUpAfter - time.Millisecond)
			w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(running())))
			time.Sleep(time.Minute)
			w.wantSaid()
		},
		"an image that comes late, and then not": func(t *testing.T, w *world) {
			follow(t, w, job)
			w.set(pulling, pending)
			time.Sleep(holdUpAfter + time.Millisecond)
			w.wantSaid(`pod p waits for its image: Pulling image "busybox"`)
			w.set(makePod(job, "p", onNode, container(waiting("ErrImagePull", "not found"))))
			w.wantSaid("pod p can't get the image busybox, which is tried again: not found")
			w.set(makePod(job, "p", onNode, container(waiting("ImagePullBackOff", "Back-off: ErrImagePull: not found"))))
			time.Sleep(time.Minute)
			w.wantSaid()
		},
		"pods that are refused": func(t *testing.T, w *world) {
			refused := event("Warning", "FailedCreate", "exceeded quota", 0)
			refused.InvolvedObject.UID = job.UID
			w.set(refused)
			follow(t, w, job)
			time.Sleep(holdUpAfter + time.Millisecond)
			w.wantSaid("job/a FailedCreate: exceeded quota")
		},
		"events that may not be watched": func(t *testing.T, w *world) {
			w.client.PrependWatchReactor("events", func(clienttesting.Action) (bool, watch.Interface, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "", errors.New("no"))
			})
			follow(t, w, job)
			w.set(pending)
			time.Sleep(holdUpAfter + time.Millisecond)
			w.wantSaid("pod p waits for its node node to start it")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, job)
				play(t, w)
				w.remove(job) // ends what follows
			})
		})
	}
}

// What keeps a container from starting is said once, though it is made anew for each try, and
// runtimes name it by another ID each time.
func TestSaysOnceWhatFailsAgain(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		f := follow(t, w, job)
		try := func(id string) {
			w.set(makePod(job, "p", onNode, container(waiting("CreateContainerError", `container "`+strings.Repeat(id, 64)+`": no such directory`))))
			time.Sleep(holdUpAfter + time.Second)
			synctest.Wait()
		}
		try("a")
		w.wantSaid(`pod p container main doesn't start: CreateContainerError: container "` + strings.Repeat("a", 64) + `": no such directory`)
		try("b")
		w.wantSaid()
		w.set(makeJob("a", with(batchv1.JobFailed, "DeadlineExceeded", "")))
		f.wantEnd(Failed, 0)
	})
}
