package jobrun

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// A log is read once, whole and in order, whatever breaks off.
func TestLogs(t *testing.T) {
	job := makeJob("a")
	complete := makeJob("a", with(batchv1.JobComplete, "", ""))
	sameTime := strings.ReplaceAll(lines("one\n", "two\n", "three\n"), ":01.", ":00.")
	long := strings.Repeat("x", maxLine+10) + "\n"
	starts := makePod(job, "p", onNode, phase(corev1.PodRunning), container(running()))
	ends := makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(terminated(0, 9)))
	for name, tc := range map[string]struct {
		answers []string
		want    string
	}{
		"breaks off": {[]string{lines("one\n", "two\n"), lines("one\n", "two\n", "three\n")}, "one\ntwo\nthree\n"},
		"breaks off between two of the same time": {[]string{sameTime[:strings.Index(sameTime, "\n")+1], sameTime}, "one\ntwo\nthree\n"},
		"breaks off in a line":                    {[]string{lines("one\n", "tw"), lines("one\n", "two\n", "three\n")}, "one\ntwo\nthree\n"},
		"breaks off in a long line":               {[]string{lines(long[:maxLine+5]), lines(long, "two\n")}, long + "two\n"},
		"has ended in a line":                     {[]string{lines("one\n", "tw")}, "one\ntw"},
		"has ended where it broke off":            {[]string{lines("one\n")}, "one\n"},
		"nothing yet":                             {[]string{"", lines("one\n")}, "one\n"},
		"a long line":                             {[]string{lines(long, "two\n")}, long + "two\n"},
		"no times":                                {[]string{"", "no time\n"}, "no time\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, job)
				w.logs["main"] = tc.answers
				f := follow(t, w, job)
				w.set(starts, ends, complete)
				f.wantEnd(Complete, 0)
				if got := w.out.String(); got != tc.want {
					t.Errorf("%q, want %q", got, tc.want)
				}
				w.wantSaid()
			})
		})
	}
}

func TestLogsOfRestarts(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		w.logs["main"] = []string{lines("first\n"), after(lines("second\n"), 1)}
		f := follow(t, w, job)
		// Of the first run nothing was seen before it had ended.
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(restarted(waiting("CrashLoopBackOff", ""), 0, 1, 1))))
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(restarted(running(), 1, 1, 1))))
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(restarted(terminated(0, 2), 1, 1, 1))))
		w.set(makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 1) // of which nobody asks
		w.wantLogged("first", "second")
		if !w.requests[0].Previous || w.requests[1].Previous {
			t.Errorf("it asked for %+v", w.requests)
		}
	})
}

// A run that was followed, and is over when the next one runs already, doesn't take
// that one's log for the rest of its own.
func TestLogsOfARestartAtOnce(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		log := map[bool]string{false: lines("first\n")} // by whether the previous run's is asked for
		w.client.PrependReactor("get", "pods/log", func(a clienttesting.Action) (bool, runtime.Object, error) {
			previous := a.(clienttesting.GenericAction).GetValue().(*corev1.PodLogOptions).Previous
			return true, &runtime.Unknown{Raw: []byte(log[previous])}, nil
		})
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(running())))
		log[true], log[false] = lines("first\n", "last words\n"), after(lines("second\n"), 1)
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(restarted(running(), 1, 1, 1))))
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(restarted(terminated(0, 2), 1, 1, 1))))
		w.set(makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 1) // of which nobody asks
		w.wantLogged("first", "last words", "second")
	})
}

func TestLogsOfSeveralContainers(t *testing.T) {
	job := makeJob("a", func(j *batchv1.Job) {
		j.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "before"}, {Name: "beside", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		w.logs["before"], w.logs["main"], w.logs["beside"] = []string{lines("b\n")}, []string{lines("m\n")}, []string{""}
		f := follow(t, w, job)
		// All are seen at once, and still come in their order.
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(terminated(0, 2)), func(p *corev1.Pod) {
			before, beside := terminated(0, 1), terminated(0, 3)
			before.Name, beside.Name = "before", "beside"
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{before, beside}
		}))
		w.set(makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 0)
		w.wantLogged("[before] b", "[main] m")
	})
}

func TestALogThatCantBeRead(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job) // which has no log
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(terminated(0, 1))), makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 0)
		if said := w.err.String(); strings.Count(said, "the log of container main of pod p can't be read: ") != 1 {
			t.Errorf("it said %q", said)
		}
	})
}

// A line that comes in pieces begins with its pod once, and anew where another pod's
// line came between.
func TestLongLinesOfSeveral(t *testing.T) {
	job := makeJob("a", func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](2) })
	long := strings.Repeat("x", 2*maxLine) + "end"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		w.logs["main"] = []string{lines(long+"\n", "two\n", long)}
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(terminated(0, 1))), makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 0)
		w.wantLogged("[p] "+long, "[p] two", "[p] "+long)

		a, b := &stream{name: "a"}, &stream{name: "b"}
		for _, piece := range []struct {
			from   *stream
			begins bool
			text   string
		}{{a, true, "1"}, {a, false, "2"}, {b, true, "3\n"}, {a, false, "4"}, {a, false, "5\n"}, {a, true, "6"}, {b, true, "7"}} {
			if err := w.output.log(piece.from, "["+piece.from.name+"] ", []byte(piece.text), piece.begins); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := w.out.String(), "[a] 12\n[b] 3\n[a] 45\n[a] 6\n[b] 7"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// What the API has no more is had from where it is kept: a pod can be deleted at once
// when it has ended, and a container can run twice more before anybody looks.
func TestKeptLogs(t *testing.T) {
	job := makeJob("a")
	failed := makeJob("a", with(batchv1.JobFailed, "BackoffLimitExceeded", ""))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		kept := map[int32]string{0: lines("first\n", "last words\n"), 1: after(lines("second\n"), 1), 2: after(lines("third\n"), 2)}
		w.kept = func(_ context.Context, pod types.UID, container string, run int32) (io.ReadCloser, error) {
			if pod != "uid-p" || container != "main" {
				t.Errorf("it asks for the log of container %s of pod %s", container, pod)
			}
			return io.NopCloser(strings.NewReader(kept[run])), nil
		}
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(running())))
		last := makePod(job, "p", onNode, phase(corev1.PodRunning), container(restarted(terminated(1, 3), 2, 1, 2)))
		w.set(last)
		w.remove(last)
		w.set(failed)
		f.wantEnd(Failed, 1)
		w.wantLogged("first", "last words", "second", "third")
	})
}

// A container that ends at once is started again at once: what the API gives as its log may by then be
// the next run's. It is printed once, and that of the first is printed, too.
func TestLogsOfTheNextRun(t *testing.T) {
	job := makeJob("a", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure })
	first, second := lines("first\n"), after(lines("second\n"), 1)
	pod := func(edit ...func(*corev1.Pod)) *corev1.Pod {
		return makePod(job, "p", append([]func(*corev1.Pod){onNode, phase(corev1.PodRunning)}, edit...)...)
	}
	for name, seen := range map[string]*corev1.Pod{
		"asked for while it ran":      pod(container(running())),
		"asked for when it had ended": pod(container(terminated(1, 1))),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, job)
				w.client.PrependReactor("get", "pods/log", func(a clienttesting.Action) (bool, runtime.Object, error) {
					log := second
					if a.(clienttesting.GenericAction).GetValue().(*corev1.PodLogOptions).Previous {
						log = first
					}
					return true, &runtime.Unknown{Raw: []byte(log)}, nil
				})
				f := follow(t, w, job)
				w.set(seen)
				w.set(pod(container(restarted(running(), 1, 1, 1))))
				w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(restarted(terminated(0, 2), 1, 1, 1))))
				w.set(makeJob("a", with(batchv1.JobComplete, "", "")))
				f.wantEnd(Complete, 1) // of which nobody asks
				w.wantLogged("second", "first")
			})
		})
	}
}

// A run that may be followed by another one isn't waited for once the Job has ended.
func TestLogsOfARunWithoutANext(t *testing.T) {
	job := makeJob("a", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure })
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		w.logs["main"] = []string{lines("one\n")}
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodRunning), container(terminated(1, 1))))
		w.set(makeJob("a", with(batchv1.JobFailed, "BackoffLimitExceeded", "")))
		f.wantEnd(Failed, 1)
		w.wantLogged("one")
	})
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// Whose output is full is told so once, and that is all that is told of the log.
func TestOutputThatCantBeWritten(t *testing.T) {
	job := makeJob("a")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, job)
		full := errors.New("no space left on device")
		w.output = NewOutput(failingWriter{full}, &w.err, "")
		w.logs["main"] = []string{lines("one\n")}
		f := follow(t, w, job)
		w.set(makePod(job, "p", onNode, phase(corev1.PodSucceeded), container(terminated(0, 1))), makeJob("a", with(batchv1.JobComplete, "", "")))
		f.wantEnd(Complete, 0)
		w.wantSaid()
		if err := w.output.Failed(); !errors.Is(err, full) {
			t.Errorf("the output failed by %v", err)
		}
	})
}
