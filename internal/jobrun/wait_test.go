package jobrun

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

func TestKK100248_WaitForEither(t *testing.T) {
	complete, failed := makeJob("a", with(batchv1.JobComplete, "", "")), makeJob("b", with(batchv1.JobFailed, "R", "m"))
	for name, tc := range map[string]struct {
		jobs  []*batchv1.Job
		names []string
		play  func(w *world)
		limit time.Duration
		want  []string
		err   string
		// watches is how many watches it takes.
		watches int
	}{
		"ended already": {jobs: []*batchv1.Job{complete, failed}, names: []string{"a", "b"}, want: []string{"job/a is Complete", "job/b has Failed: R: m"}},
		"both ends, of which one comes": {
			jobs: []*batchv1.Job{makeJob("a"), failed}, names: []string{"a", "b", "a"}, play: func(w *world) { w.set(complete) },
			want: []string{"job/b has Failed: R: m", "job/a is Complete"}, watches: 1,
		},
		"two by one watch": {
			jobs: []*batchv1.Job{makeJob("a"), makeJob("b"), makeJob("c")}, names: []string{"a", "b"}, play: func(w *world) { w.set(failed, makeJob("c", with(batchv1.JobComplete, "", "")), complete) },
			want: []string{"job/b has Failed: R: m", "job/a is Complete"}, watches: 1,
		},
		"deleted": {
			jobs: []*batchv1.Job{makeJob("a"), makeJob("b")}, names: []string{"a", "b"}, play: func(w *world) { w.remove(complete); w.set(failed) },
			want: []string{"job/a was deleted before it had ended", "job/b has Failed: R: m"}, watches: 1,
		},
		"deleted when it had ended": {
			jobs: []*batchv1.Job{makeJob("a")}, names: []string{"a"}, play: func(w *world) { w.set(complete); w.remove(complete) },
			want: []string{"job/a is Complete"}, watches: 1,
		},
		"another of its name": {
			jobs: []*batchv1.Job{makeJob("a")}, names: []string{"a"}, play: func(w *world) {
				w.set(makeJob("a", with(batchv1.JobComplete, "", ""), func(j *batchv1.Job) { j.UID = "another" }))
			},
			want: []string{"job/a was deleted before it had ended"}, watches: 1,
		},
		"none": {jobs: []*batchv1.Job{complete}, names: []string{"a", "x"}, err: "there is no job/x in the namespace default"},
		"too long": {
			jobs: []*batchv1.Job{makeJob("a"), complete, makeJob("b")}, names: []string{"b", "a"}, play: func(w *world) { w.set(complete) }, limit: time.Minute,
			want: []string{"job/a is Complete", "job/b has not ended: 0 of 1 succeeded, 0 active, 0 failed; pod p can't get the image busybox, which is tried again: not found"}, err: context.DeadlineExceeded.Error(), watches: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, job := range tc.jobs {
					w.set(job)
				}
				w.set(makePod(makeJob("b"), "p", onNode, container(waiting("ErrImagePull", "not found"))))
				watches := 0
				w.client.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) {
					watches++
					return false, nil, nil
				})
				ctx := t.Context()
				if tc.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.limit)
					defer cancel()
				}
				var told []string
				done := make(chan error, 1)
				go func() {
					done <- Wait(ctx, w.client, w.output, "default", tc.names, func(e End) { told = append(told, e.String()) })
				}()
				synctest.Wait()
				if tc.play != nil {
					tc.play(w)
				}
				err := <-done
				if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				if tc.limit > 0 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v isn't the context's", err)
				}
				if !slices.Equal(told, tc.want) || watches != tc.watches {
					t.Errorf("told %q by %d watches, want %q by %d", told, watches, tc.want, tc.watches)
				}
			})
		})
	}
}

// A Job that is being deleted may be held by a finalizer for ever, and its pods are gone.
func TestWaitForAJobThatIsBeingDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, makeJob("a", deletedAt5("x/y")), makeJob("b"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var told []string
		done := make(chan error, 1)
		go func() {
			done <- Wait(ctx, w.client, w.output, "default", []string{"a", "b"}, func(e End) { told = append(told, e.String()) })
		}()
		since := " is being deleted since " + at(5).Local().Format(time.DateTime) + ": it waits until the controllers of its finalizers have removed them: "
		w.wantSaid("job/a" + since + "x/y")
		w.set(makeJob("b", deletedAt5("z")))
		w.set(makeJob("b", deletedAt5("z")))
		w.wantSaid("job/b" + since + "z")
		<-done
		const stands = " has not ended: 0 of 1 succeeded, 0 active, 0 failed; it"
		if want := []string{"job/a" + stands + since + "x/y", "job/b" + stands + since + "z"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
