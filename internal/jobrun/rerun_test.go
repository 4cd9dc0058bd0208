package jobrun

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// What the server, controllers and owners put into a Job isn't in the next one.
func TestKK80207_TheSameJobAnew(t *testing.T) {
	old := makeJob("a", with(batchv1.JobComplete, "", ""), func(j *batchv1.Job) {
		j.Labels = map[string]string{"app": "x", "job-name": "a", batchv1.ControllerUidLabel: string(j.UID)}
		j.Annotations = map[string]string{"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}", batchv1.CronJobScheduledTimestampAnnotation: "t"}
		j.OwnerReferences = []metav1.OwnerReference{{Kind: "CronJob", Name: "c"}}
		j.Finalizers = []string{"x/y"}
		j.Spec.Suspend = ptr.To(true)
		j.Spec.Template.Labels["app"] = "x"
	})
	want := old.DeepCopy()
	want.ObjectMeta = metav1.ObjectMeta{
		Name: "b", Namespace: "default", Labels: map[string]string{"app": "x", "job-name": "b"}, Annotations: map[string]string{"note": "kept"},
	}
	want.Spec.Selector, want.Spec.Suspend = nil, ptr.To(false)
	want.Spec.Template.Labels = map[string]string{"app": "x"}
	want.Status = batchv1.JobStatus{}
	if diff := cmp.Diff(want, again(old, "b")); diff != "" {
		t.Error(diff)
	}

	old.Spec.ManualSelector = ptr.To(true)
	if got := again(old, "b"); got.Spec.Selector == nil || len(got.Spec.Template.Labels) != len(old.Spec.Template.Labels) {
		t.Errorf("of a selector of its own is left %v, of its labels %v", got.Spec.Selector, got.Spec.Template.Labels)
	}
}

func TestNumbered(t *testing.T) {
	long := strings.Repeat("x", 63)
	for name, tc := range map[string]struct {
		job  *batchv1.Job
		n    int
		want string
	}{
		"the first":                            {makeJob("a"), 2, "a-2"},
		"of a numbered":                        {makeJob("a-2", func(j *batchv1.Job) { j.Annotations = map[string]string{RerunOf: "a"} }), 3, "a-3"},
		"of one with a number in its own name": {makeJob("part-2"), 2, "part-2-2"},
		"long":                                 {makeJob(long), 10, strings.Repeat("x", 60) + "-10"},
		"long, Indexed": {makeJob(long, func(j *batchv1.Job) {
			j.Spec.CompletionMode, j.Spec.Completions = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](1001)
		}), 2, strings.Repeat("x", 56) + "-2"}, // and -1000 for the last pod's host
		"cut at a dash": {makeJob(strings.Repeat("x", 59) + "--xx"), 2, strings.Repeat("x", 59) + "-2"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := numbered(tc.job, tc.n); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestKK77396_TheNextFreeName(t *testing.T) {
	client := fake.NewClientset(makeJob("a"), makeJob("a-2"))
	output := NewOutput(&bytes.Buffer{}, &bytes.Buffer{}, "")
	for _, tc := range []struct{ of, want string }{{"a", "a-3"}, {"a-3", "a-4"}, {"a-2", "a-2-2"}} {
		job, err := Rerun(t.Context(), client, output, "default", tc.of, How{})
		if err != nil || job.Name != tc.want {
			t.Fatalf("%s again is %v, %v; want %s", tc.of, job, err, tc.want)
		}
	}
	job, err := Rerun(t.Context(), client, output, "default", "a-3", How{Name: "mine"})
	if err != nil || job.Name != "mine" || job.Annotations[RerunOf] != "" {
		t.Errorf("under a name of the caller's it is %v, %v", job, err)
	}
	if _, err := Rerun(t.Context(), client, output, "default", "none", How{}); err == nil || err.Error() != "there is no job/none in the namespace default" {
		t.Errorf("one that doesn't exist: %v", err)
	}
}

func TestRerunReplaces(t *testing.T) {
	refusal := errors.New("quota exceeded")
	for name, refuses := range map[string]bool{"what the API takes": false, "not what it refuses": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(makeJob("a"))
				client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
					if len(a.(clienttesting.CreateActionImpl).CreateOptions.DryRun) == 0 {
						return false, nil, nil
					}
					if refuses {
						return true, nil, refusal
					}
					return true, &batchv1.Job{}, nil
				})
				// The API keeps a Job until its pods are gone.
				held := false
				client.PrependReactor("delete", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
					held = *a.(clienttesting.DeleteActionImpl).DeleteOptions.PropagationPolicy == metav1.DeletePropagationForeground
					return true, nil, nil
				})
				var job *batchv1.Job
				var err error
				done := false
				go func() {
					job, err = Rerun(context.Background(), client, NewOutput(&bytes.Buffer{}, &bytes.Buffer{}, ""), "default", "a", How{Replace: true})
					done = true
				}()
				synctest.Wait()
				if refuses {
					if !done || !errors.Is(err, refusal) || held {
						t.Errorf("done %v, error %v, deleted %v", done, err, held)
					}
					return
				}
				if done || !held {
					t.Fatalf("it waits for no deletion: deleted in the foreground %v, %v, %v", held, job, err)
				}
				if err := client.Tracker().Delete(batchv1.SchemeGroupVersion.WithResource("jobs"), "default", "a"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if !done || err != nil || job.Name != "a" || job.UID == "uid-a" {
					t.Errorf("done %v, %v, %v", done, job, err)
				}
			})
		})
	}
}

// What keeps the old Job from being gone is said, and not at once.
func TestRerunSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, makeJob("a"))
		w.client.PrependReactor("create", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) { return true, makeJob("a"), nil })
		done := make(chan error, 1)
		go func() {
			_, err := Rerun(t.Context(), w.client, w.output, "default", "a", How{Replace: true})
			done <- err
		}()
		w.wantSaid("job/a has not ended; it is deleted with its pods")
		w.set(makeJob("a", deletedAt5("x/y", metav1.FinalizerDeleteDependents)))
		w.wantSaid()
		time.Sleep(holdUpAfter) // of the test's own clock
		since := "job/a is being deleted since " + at(5).Local().Format(time.DateTime) + ": it waits until the controllers of its finalizers have removed them: "
		w.wantSaid(since + "x/y, foregroundDeletion (what belongs to it goes first)")
		w.set(makeJob("a", deletedAt5("x/y")))
		w.wantSaid(since + "x/y")
		w.remove(makeJob("a"))
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.wantSaid()
	})
}

// Who may delete a Job and not watch it is told what has become of it.
func TestRerunReplacesUnwatched(t *testing.T) {
	w := newWorld(t, makeJob("a"))
	w.client.PrependReactor("create", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) { return true, makeJob("a"), nil })
	w.client.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "batch", Resource: "jobs"}, "a", errors.New("no"))
	})
	_, err := Rerun(t.Context(), w.client, w.output, "default", "a", How{Replace: true})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "job/a is being deleted, and isn't created anew") || len(w.deletions) != 1 {
		t.Errorf("error %v, deletions %+v", err, w.deletions)
	}
}
