package joblogs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/keptlogs"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// at is so many milliseconds past noon.
func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

func pod(name string, statuses ...v1.ContainerStatus) v1.Pod {
	return v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(noon),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "uid-j", Controller: ptr.To(true)}},
		},
		Status: v1.PodStatus{ContainerStatuses: statuses},
	}
}

// status is a container's that was restarted so often.
func status(name string, restarts int32, now, last v1.ContainerState) v1.ContainerStatus {
	return v1.ContainerStatus{Name: name, RestartCount: restarts, State: now, LastTerminationState: last}
}

// The API tells whole seconds.
func running(ms int) v1.ContainerState {
	return v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(at(ms).Truncate(time.Second))}}
}

func ended(ms int, code int32) v1.ContainerState {
	return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ContainerID: "errand://x", ExitCode: code, StartedAt: metav1.NewTime(at(ms).Truncate(time.Second)), FinishedAt: metav1.NewTime(at(ms)),
	}}
}

var (
	none    v1.ContainerState
	waiting = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
)

func keptOf(job, pod, container string, n int32, ms int, end *keptlogs.End) keptRun {
	return keptRun{node: "here", Run: keptlogs.Run{
		Namespace: "ns", JobName: "j", JobUID: types.UID("uid-" + job), PodName: pod, PodUID: types.UID("uid-" + pod),
		Container: container, RestartCount: n, StartedAt: at(ms), KeptAt: at(ms), Ended: end,
	}}
}

func TestMerge(t *testing.T) {
	failed := &keptlogs.End{ExitCode: 1}
	for name, tc := range map[string]struct {
		pods []v1.Pod
		kept []keptRun
		want string // pod/container#number, with what else there is to say
	}{
		"nothing": {},
		"present, previous and kept": {
			[]v1.Pod{pod("p", status("c", 2, running(2000), ended(1000, 1)))},
			[]keptRun{keptOf("j", "p", "c", 0, 500, failed)},
			"p/c#0:1 p/c#1:1(previous) p/c#2:running",
		},
		"in back-off the last is the previous": {
			[]v1.Pod{pod("p", status("c", 2, waiting, ended(1000, 1)))}, nil,
			"p/c#2:1(previous)",
		},
		"what is kept is preferred": {
			[]v1.Pod{pod("p", status("c", 1, ended(1000, 1), ended(0, 1)))},
			[]keptRun{keptOf("j", "p", "c", 0, 0, failed), keptOf("j", "p", "c", 1, 1000, failed)},
			"p/c#0:1 p/c#1:1",
		},
		"within a second": {
			[]v1.Pod{pod("p", status("c", 2, ended(950, 1), ended(900, 1)), status("b", 0, ended(100, 0), none))},
			[]keptRun{keptOf("j", "p", "c", 0, 800, failed)},
			"p/b#0:0 p/c#0:1 p/c#1:1(previous) p/c#2:1",
		},
		"by start across pods": {
			[]v1.Pod{pod("a", status("c", 0, running(9000), none))},
			[]keptRun{keptOf("j", "z", "c", 0, 1000, failed), keptOf("j", "m", "c", 0, 5000, &keptlogs.End{})},
			"z/c#0:1(gone) m/c#0:0(gone) a/c#0:running",
		},
		"of an end that nobody saw":    {nil, []keptRun{keptOf("j", "p", "c", 0, 0, nil)}, "p/c#0:?(gone)"},
		"another Job's of the name":    {nil, []keptRun{keptOf("before", "p", "c", 0, 0, nil)}, ""},
		"what hasn't begun has no log": {[]v1.Pod{pod("p", status("c", 0, waiting, none))}, nil, ""},
		"what couldn't begin has none": {[]v1.Pod{pod("p", status("c", 0, v1.ContainerState{Terminated: &v1.ContainerStateTerminated{}}, none))}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := describe(merge("uid-j", tc.pods, tc.kept))
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func describe(attempts []Attempt) string {
	var words []string
	for _, a := range attempts {
		end := "?"
		if a.ExitCode != nil {
			end = fmt.Sprint(*a.ExitCode)
		}
		if a.Running {
			end = "running"
		}
		if a.previous {
			end += "(previous)"
		}
		if a.PodGone {
			end += "(gone)"
		}
		words = append(words, fmt.Sprintf("%s/%s#%d:%s", a.Pod, a.Container, a.RestartCount, end))
	}
	return strings.Join(words, " ")
}

func TestFailed(t *testing.T) {
	for name, tc := range map[string]struct {
		attempt Attempt
		want    bool
	}{
		"running":            {Attempt{Running: true}, false},
		"succeeded":          {Attempt{ExitCode: ptr.To[int32](0), Reason: "Completed"}, false},
		"failed":             {Attempt{ExitCode: ptr.To[int32](3)}, true},
		"a child was killed": {Attempt{ExitCode: ptr.To[int32](0), Reason: "OOMKilled"}, true},
		"nobody saw its end": {Attempt{}, true},
	} {
		if got := tc.attempt.Failed(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// api answers what it has by path, and 404 for all else.
type api struct {
	answers map[string]any // objects; strings are logs; ints are failures

	mu    sync.Mutex
	calls []string
}

func (a *api) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	a.mu.Lock()
	a.calls = append(a.calls, req.URL.RequestURI())
	a.mu.Unlock()
	answer, ok := a.answers[req.URL.Path]
	if !ok {
		answer = http.StatusNotFound
	}
	switch answer := answer.(type) {
	case string:
		fmt.Fprint(w, answer)
		return
	case int:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer)
		reason := map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound}[answer]
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(answer), Reason: reason})
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (a *api) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func list(runs ...keptRun) keptlogs.List {
	var l keptlogs.List
	for _, r := range runs {
		l.Runs = append(l.Runs, r.Run)
	}
	return l
}

const (
	jobPath   = "/apis/batch/v1/namespaces/ns/jobs/j"
	podsPath  = "/api/v1/namespaces/ns/pods"
	nodesPath = "/api/v1/nodes"
	keptPath  = "/api/v1/nodes/here/proxy/keptLogs/ns/j"
)

func node(name, version string) v1.Node {
	return v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{NodeInfo: v1.NodeSystemInfo{KubeletVersion: version}}}
}

func cluster(changes map[string]any) *api {
	answers := map[string]any{
		jobPath: batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j", UID: "uid-j"},
			Spec:       batchv1.JobSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"mine": "yes"}}},
		},
		podsPath:  v1.PodList{Items: []v1.Pod{pod("p", status("c", 0, running(1000), none))}},
		nodesPath: v1.NodeList{Items: []v1.Node{node("here", "v1.37.2+errand.1"), node("elsewhere", "v1.37.2")}},
		keptPath:  list(keptOf("before", "x", "c", 0, -5000, nil), keptOf("j", "q", "c", 0, 0, nil)),
	}
	maps.Copy(answers, changes)
	return &api{answers: answers}
}

func TestFind(t *testing.T) {
	for name, tc := range map[string]struct {
		changes    map[string]any
		want       string
		forbidden  bool
		unanswered string
		err        string
	}{
		"there":                               {want: "q/c#0:?(gone) p/c#0:running"},
		"gone, with pods left":                {changes: map[string]any{jobPath: 404}, want: "q/c#0:?(gone) p/c#0:running"},
		"gone, with its pods":                 {changes: map[string]any{jobPath: 404, podsPath: v1.PodList{}}, want: "q/c#0:?(gone)"},
		"none of that name":                   {changes: map[string]any{jobPath: 404, podsPath: v1.PodList{}, keptPath: keptlogs.List{}}, err: `there is no Job "j" in namespace "ns"`},
		"gone, and what is kept is forbidden": {changes: map[string]any{jobPath: 404, podsPath: v1.PodList{}, keptPath: 403}, err: `there is no Job "j" in namespace "ns"; logs may be kept of one that was there, but can't be asked for: ask node here`},
		"what is kept is forbidden":           {changes: map[string]any{keptPath: 403}, want: "p/c#0:running", forbidden: true},
		"nodes are forbidden":                 {changes: map[string]any{nodesPath: 403}, want: "p/c#0:running", forbidden: true},
		"a node that keeps none":              {changes: map[string]any{keptPath: 404}, want: "p/c#0:running"},
		"a node that doesn't answer":          {changes: map[string]any{keptPath: 503}, want: "p/c#0:running", unanswered: "ask node here for the logs that it keeps"},
		"a node that answers wrongly":         {changes: map[string]any{keptPath: "<html>"}, want: "p/c#0:running", unanswered: "ask node here for the logs that it keeps"},
		"nodes can't be had":                  {changes: map[string]any{nodesPath: 503}, want: "p/c#0:running", unanswered: "list nodes"},
		"one of two doesn't answer": {changes: map[string]any{
			nodesPath: v1.NodeList{Items: []v1.Node{node("lost", "v1.37.2+errand.1"), node("here", "v1.37.2+errand.1")}}, strings.Replace(keptPath, "here", "lost", 1): 503,
		}, want: "q/c#0:?(gone) p/c#0:running", unanswered: "ask node lost for the logs that it keeps"},
		"gone, and no node answers": {changes: map[string]any{jobPath: 404, podsPath: v1.PodList{}, keptPath: 503}, err: "but can't be asked for: ask node here"},
		"pods are forbidden":        {changes: map[string]any{podsPath: 403}, err: "list the Job's pods"},
		"the Job is forbidden":      {changes: map[string]any{jobPath: 403}, err: "get the Job"},
	} {
		t.Run(name, func(t *testing.T) {
			a := cluster(tc.changes)
			j, err := Find(t.Context(), a.client(t), "ns", "j")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(j.Attempts); got != tc.want || (j.Forbidden != nil) != tc.forbidden {
				t.Errorf("got  %s, forbidden: %v\nwant %s", got, j.Forbidden, tc.want)
			}
			if u := j.Unanswered; (u != nil) != (tc.unanswered != "") || u != nil && !strings.Contains(u.Error(), tc.unanswered) {
				t.Errorf("unanswered: %v, want %q", u, tc.unanswered)
			}
			if slices.ContainsFunc(a.calls, func(c string) bool { return strings.Contains(c, "elsewhere") }) {
				t.Errorf("a kubelet was asked: %q", a.calls)
			}
		})
	}
}

// silent is a way to the API on which one node never answers.
type silent struct {
	*api
	node string
}

func (s silent) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.Path, nodesPath+"/"+s.node+"/") {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w.Result(), nil
}

// A node that hangs is waited for, but not for ever, and once, however many there are.
func TestNodesThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errands := []v1.Node{node("lost", "v1.37.2+errand.1"), node("here", "v1.37.2+errand.1"), node("lost", "v1.37.2+errand.1")}
		way := silent{cluster(map[string]any{nodesPath: v1.NodeList{Items: errands}}), "lost"}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://api", QPS: -1, Transport: way, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		j, err := Find(t.Context(), client, "ns", "j")
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(j.Attempts); got != "q/c#0:?(gone) p/c#0:running" {
			t.Errorf("found %s", got)
		}
		if u := j.Unanswered; u == nil || !strings.Contains(u.Error(), "ask node lost for the logs that it keeps: it took longer than 10s") {
			t.Errorf("unanswered: %v", u)
		}
		if took := time.Since(began); took != nodeTime {
			t.Errorf("it took %s, want %s", took, nodeTime)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Find(ctx, client, "ns", "j"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whose caller goes: %v", err)
		}
	})
}

// A log is read where it is, even if it has come to be elsewhere since.
func TestOpen(t *testing.T) {
	const podLog, keptLog = podsPath + "/p/log", keptPath + "/uid-p/c/0"
	for name, tc := range map[string]struct {
		changes map[string]any // after the Job was found
		want    string
		err     bool
	}{
		"of the pod":               {map[string]any{podLog: "present\n"}, "present\n", false},
		"the pod has just gone":    {map[string]any{keptPath: list(keptOf("j", "p", "c", 0, 1000, nil)), keptLog: "kept\n"}, "kept\n", false},
		"it has gone, log and all": {nil, "", true},
		"its container is away":    {map[string]any{podLog: 500}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := cluster(map[string]any{keptPath: keptlogs.List{}})
			j, err := Find(t.Context(), a.client(t), "ns", "j")
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(a.answers, tc.changes)
			log, err := j.Open(t.Context(), &j.Attempts[0], true)
			if (err != nil) != tc.err {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			text, err := io.ReadAll(log)
			if err = errors.Join(err, log.Close()); err != nil || string(text) != tc.want {
				t.Errorf("%q, %v; want %q", text, err, tc.want)
			}
			if last := a.calls[len(a.calls)-1]; !strings.Contains(last, "timestamps=true") {
				t.Errorf("asked for by %s", last)
			}
		})
	}
}
