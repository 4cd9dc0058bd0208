package controllers_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setBack does to the cluster what setting its clock back by d does. The clock of a bubble only goes forward, but a clock that was set back shows
// itself to controllers in one way alone: by objects whose times lie ahead of it. Those that a running process measures by itself are monotonic, and
// don't change. So all times that were written are put forward by d.
func (l *timeline) setBack(d time.Duration) {
	l.t.Helper()
	ahead := func(times ...*metav1.Time) {
		for _, t := range times {
			if t != nil && !t.IsZero() {
				t.Time = t.Add(d)
			}
		}
	}
	ctx, batch := l.t.Context(), l.client.BatchV1()
	cron, err := batch.CronJobs("default").Get(ctx, "cron", metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	ahead(&cron.CreationTimestamp, cron.Status.LastScheduleTime, cron.Status.LastSuccessfulTime)
	if _, err := batch.CronJobs("default").Update(ctx, cron, metav1.UpdateOptions{}); err != nil {
		l.t.Fatal(err)
	}
	list, err := batch.Jobs("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range list.Items {
		job := &list.Items[i]
		ahead(&job.CreationTimestamp, job.Status.StartTime, job.Status.CompletionTime)
		for c := range job.Status.Conditions {
			ahead(&job.Status.Conditions[c].LastProbeTime, &job.Status.Conditions[c].LastTransitionTime)
		}
		if _, err := batch.Jobs("default").Update(ctx, job, metav1.UpdateOptions{}); err != nil {
			l.t.Fatal(err)
		}
	}
	pods, err := l.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range pods.Items {
		ahead(&pods.Items[i].CreationTimestamp)
		if _, err := l.client.CoreV1().Pods("default").Update(ctx, &pods.Items[i], metav1.UpdateOptions{}); err != nil {
			l.t.Fatal(err)
		}
	}
}

// A minute that was is not run again when a clock that was set back comes to it a second time: the CronJob goes on with the first minute that is
// new, as Kubernetes has it. What has finished is kept until its TTL is over by that clock: nothing is deleted early. It makes no difference whether
// the controllers run while the clock is set.
func TestCronJobWithTheClockSetBack(t *testing.T) {
	for _, tc := range []struct {
		name    string
		back    time.Duration
		running bool
	}{
		{"a minute, running", time.Minute, true},
		{"a minute, stopped", time.Minute, false},
		{"half an hour, running", 30 * time.Minute, true},
		{"half an hour, stopped", 30 * time.Minute, false},
		{"an hour, running", time.Hour, true},
		{"an hour, stopped", time.Hour, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t)
				l.run()
				l.schedule("* * * * *", "", 95)
				time.Sleep(10*time.Minute + 30*time.Second)
				before, complete := l.jobs()
				if len(before) != 2 || complete != 2 {
					t.Fatalf("before there are %v, %d of them complete", before, complete)
				}
				if tc.running {
					l.setBack(tc.back)
				} else {
					l.end()
					l.setBack(tc.back)
					l.run()
				}
				defer func() { l.end() }()
				l.wantCaughtUp(tc.back)
			})
		})
	}
}

// wantCaughtUp looks on until some minutes after the clock has caught up.
func (l *timeline) wantCaughtUp(back time.Duration) {
	l.t.Helper()
	began := time.Now().Truncate(time.Minute)
	caughtUp := began.Add(back) // the last minute that was run before
	ran := l.startsAt()
	// The Job of the last minute ended ten seconds after it, and is kept for 95: to the second until then.
	time.Sleep(time.Until(caughtUp.Add(104 * time.Second)))
	synctest.Wait()
	if !slices.Contains(l.jobTimes(), caughtUp.UTC().Format(time.TimeOnly)) {
		l.t.Error("the last Job was deleted before its TTL was over")
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if slices.Contains(l.jobTimes(), caughtUp.UTC().Format(time.TimeOnly)) {
		l.t.Error("the last Job stays after its TTL is over")
	}
	time.Sleep(time.Until(caughtUp.Add(5*time.Minute + 30*time.Second)))
	want := ran
	for i := range 5 {
		want = append(want, caughtUp.Add(time.Duration(i+1)*time.Minute).UTC().Format("01-02 15:04:05"))
	}
	if got := l.startsAt(); !slices.Equal(got, want) {
		l.t.Errorf("the Jobs were created at %v, want %v", got, want)
	}
	if names, _ := l.jobs(); len(names) != 2 {
		l.t.Errorf("at the end there are %v", names)
	}
}

// jobTimes are the times at which those Jobs that exist were created, by the cluster's clock.
func (l *timeline) jobTimes() []string {
	l.t.Helper()
	list, err := l.client.BatchV1().Jobs("default").List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	var at []string
	for i := range list.Items {
		at = append(at, list.Items[i].CreationTimestamp.UTC().Format(time.TimeOnly))
	}
	return at
}
