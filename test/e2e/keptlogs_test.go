//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/test/harness"
)

// jobLogs runs errand logs, which must succeed.
func (e *errand) jobLogs(args ...string) harness.Result {
	e.t.Helper()
	r := runErrand(e.t, append([]string{"logs", "--data-dir=" + e.cfg.DataDir}, args...)...)
	if r.Code != 0 {
		e.t.Fatalf("errand logs %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r
}

// wantNoPods checks that the Job's pods are gone: kubectl logs has nothing to show.
func (e *errand) wantNoPods(job string) {
	e.t.Helper()
	e.wait("delete", "pod", "-l", "batch.kubernetes.io/job-name="+job)
}

// kubernetes#74848: a Job with restartPolicy OnFailure that reaches its backoffLimit
// loses its pod, and its logs with it; of more than two attempts the earlier ones'
// are gone before.
func TestKK74848_LogsOfAJobAtItsBackoffLimit(t *testing.T) {
	e := start(t)
	const script = `echo >> /disk/runs; n=$(wc -l < /disk/runs); echo attempt $n; [ $n -lt 3 ] || sleep 3600; exit 1`
	manifest := func(name, limit string) string {
		return strings.Replace(job(name, script, "backoffLimit: "+limit), "Never", "OnFailure", 1) +
			"        volumeMounts: [{name: disk, mountPath: /disk}]\n      volumes: [{name: disk, emptyDir: {}}]\n"
	}
	e.apply(manifest("fails", "1"))
	e.apply(manifest("restarts", "9"))

	e.wait("condition=failed", "job/fails")
	e.wantNoPods("fails")
	r := e.jobLogs("job/fails")
	// The second attempt reaches the limit when it begins: it may not have spoken.
	if !strings.HasPrefix(r.Stdout, "attempt 1\n") {
		t.Errorf("of the Job that failed errand logs prints %q", r.Stdout)
	}
	headings := lines(r.Stderr)
	if want := "attempt 1: exit code 1 (Error), "; len(headings) != 2 || !strings.Contains(headings[0], want) || !strings.HasSuffix(headings[0], "; the pod is gone") {
		t.Errorf("its headings are %q, want %q in the first of two", headings, want)
	}

	// The first attempt is kept, the second is the previous, the third goes on.
	e.wait("jsonpath={.status.containerStatuses[0].restartCount}=2", "pod", "-l", "batch.kubernetes.io/job-name=restarts")
	if got := e.firstLine(e.pods("restarts")[0].Name); got != "attempt 3" {
		t.Fatalf("the third attempt says %q", got)
	}
	const all = "attempt 1\nattempt 2\nattempt 3"
	wantLines(t, e.jobLogs("job/restarts").Stdout, all)
	wantLines(t, e.jobLogs("job/restarts", "--failed").Stdout, "attempt 1\nattempt 2")
	wantLines(t, e.jobLogs("job/restarts", "-c", "nosuch").Stdout, "")
	t.Run("without the right to read what is kept", func(t *testing.T) {
		e := e.with(t)
		r := e.jobLogs("job/restarts", "--kubeconfig="+e.viewer())
		wantLines(t, r.Stdout, "attempt 2\nattempt 3")
		if !strings.Contains(r.Stderr, "nodes/proxy") {
			t.Errorf("it doesn't say what is missing:\n%s", r.Stderr)
		}
	})

	e.kubectl("delete", "job", "restarts", "--cascade=foreground")
	wantLines(t, e.jobLogs("job/restarts").Stdout, all)
	var out struct {
		Attempts []struct {
			RestartCount int
			ExitCode     int
			PodGone      bool
			Log          string
		}
	}
	if err := json.Unmarshal([]byte(e.jobLogs("job/restarts", "-o", "json").Stdout), &out); err != nil {
		t.Fatal(err)
	}
	for i, a := range out.Attempts {
		if code := []int{1, 1, 137}[i]; a.RestartCount != i || a.ExitCode != code || !a.PodGone || a.Log != fmt.Sprintf("attempt %d\n", i+1) {
			t.Errorf("attempt %d is %+v, want exit code %d", i+1, a, code)
		}
	}
	if len(out.Attempts) != 3 {
		t.Errorf("there are %d attempts", len(out.Attempts))
	}
	if r := runErrand(t, "logs", "--data-dir="+e.cfg.DataDir, "job/nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, `there is no Job "nosuch"`) {
		t.Errorf("of a Job that never was, errand logs says (exit code %d) %s", r.Code, r.Stderr)
	}
	wantSecret(t, filepath.Join(e.cfg.DataDir, "logs", "kept"))
}

// viewer returns the kubeconfig of who may view the namespace, and no more.
func (e *errand) viewer() string {
	e.t.Helper()
	e.kubectl("create", "serviceaccount", "viewer")
	e.kubectl("create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:viewer")
	config, err := clientcmd.LoadFromFile(e.Kubeconfig())
	if err != nil {
		e.t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.ClientCertificateData, user.ClientKeyData = nil, nil
		user.Token = strings.TrimSpace(e.kubectl("create", "token", "viewer"))
	}
	path := filepath.Join(e.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		e.t.Fatal(err)
	}
	return path
}

// wantSecret checks that what is in a directory is its owner's alone.
func wantSecret(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%s holds %v, %v", dir, entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

// kubernetes#78644: a Job that reaches its activeDeadlineSeconds loses its pods.
func TestKK78644_LogsOfAJobPastItsDeadline(t *testing.T) {
	e := start(t)
	e.apply(job("late", "echo begun; sleep 3600", "activeDeadlineSeconds: 5"))
	e.wait("condition=failed", "job/late")
	e.wantNoPods("late")
	r := e.jobLogs("job/late", "--failed")
	wantLines(t, r.Stdout, "begun")
	if !strings.Contains(r.Stderr, "exit code 137 (Error)") {
		t.Errorf("its heading is %q", r.Stderr)
	}
}

// kubernetes#107891: a Job that is suspended loses its pods. When it goes on, what
// they said comes first.
func TestKK107891_LogsOfASuspendedJob(t *testing.T) {
	e := start(t)
	e.apply(job("paused", "echo I am $HOSTNAME; sleep 3600"))
	e.wait("jsonpath={.status.ready}=1", "job/paused")
	said := e.firstLine(e.pods("paused")[0].Name)
	e.kubectl("patch", "job/paused", "--patch", `{"spec":{"suspend":true}}`)
	e.wait("condition=Suspended", "job/paused")
	e.wantNoPods("paused")
	wantLines(t, e.jobLogs("job/paused").Stdout, said)
	e.kubectl("patch", "job/paused", "--patch", `{"spec":{"suspend":false}}`)
	e.wait("jsonpath={.status.ready}=1", "job/paused")
	then := e.firstLine(e.pods("paused")[0].Name)
	wantLines(t, e.jobLogs("job/paused").Stdout, said+"\n"+then)
}

// A Job that goes when it has finished takes its pod with it at once: its log is there
// all the same, all files of it.
func TestLogsOfAJobThatIsGone(t *testing.T) {
	const lines, files = 20000, 50
	e := start(t, "--container-log-max-size=64Ki", fmt.Sprint("--container-log-max-files=", files))
	e.apply(job("brief", fmt.Sprint("seq ", lines), "ttlSecondsAfterFinished: 0"))
	e.wait("delete", "job/brief")
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
	}
	if got := e.jobLogs("job/brief").Stdout; got != want.String() {
		t.Errorf("errand logs prints %d bytes, want %d", len(got), want.Len())
	}
	rotated, err := filepath.Glob(filepath.Join(e.cfg.DataDir, "logs/kept/*.log.*"))
	if err != nil || ctrd == nil && len(rotated) < 2 { // a containerd's log would take ten seconds
		t.Errorf("the log wasn't rotated: %q, %v", rotated, err)
	}
}

// firstLine waits until a pod has said something.
func (e *errand) firstLine(pod string) string {
	e.t.Helper()
	log, err := e.client.CoreV1().Pods("default").GetLogs(pod, &v1.PodLogOptions{Follow: true}).Stream(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	line, err := bufio.NewReader(log).ReadString('\n')
	if err != nil {
		e.t.Fatalf("log of pod %s: %q, %v", pod, line, err)
	}
	return strings.TrimSpace(line)
}

// errand is killed at some moment of its deleting pods: the next one keeps what this
// one hasn't, and leaves nothing half.
func TestKilledWhileKeepingLogs(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	e := start(t)
	const pods = 4
	for round := range 8 {
		name := fmt.Sprint("round-", round)
		e.apply(job(name, "echo I am $HOSTNAME; sleep 3600", fmt.Sprint("completions: ", pods), fmt.Sprint("parallelism: ", pods)))
		e.wait(fmt.Sprint("jsonpath={.status.ready}=", pods), "job/"+name)
		var said []string
		for _, p := range e.pods(name) {
			said = append(said, e.firstLine(p.Name))
		}
		e.kubectl("delete", "job", name, "--cascade=background", "--wait=false")
		// A pause of random length is the point here: what is waited for is any moment.
		pause := time.NewTimer(time.Duration(random.IntN(400)) * time.Millisecond)
		<-pause.C
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.start()
		e.wantNoPods(name)
		e.wantLogs("job/"+name, said)
	}
	e.wantKeptWhole(8 * pods)
}

// wantLogs checks that errand logs prints these lines, in any order.
func (e *errand) wantLogs(job string, want []string) {
	e.t.Helper()
	r := runErrand(e.t, "logs", "--data-dir="+e.cfg.DataDir, job)
	got := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if r.Code != 0 || !slices.Equal(got, want) {
		e.t.Fatalf("errand logs %s: exit code %d, prints %q, want %q\n%s", job, r.Code, got, want, r.Stderr)
	}
}

// wantKeptWhole checks that so many runs are kept, with a record and a log each, and
// that nothing else of pods is left in the data directory.
func (e *errand) wantKeptWhole(runs int) {
	e.t.Helper()
	for dir, want := range map[string]map[string]int{
		"logs/kept": {".json": runs, ".log": runs, ".gone": 8},
		"logs/pods": {},
		"pods":      {},
	} {
		entries, err := os.ReadDir(filepath.Join(e.cfg.DataDir, dir))
		if err != nil {
			e.t.Fatal(err)
		}
		got := map[string]int{}
		for _, entry := range entries {
			got[filepath.Ext(entry.Name())]++
		}
		if !maps.Equal(got, want) {
			e.t.Errorf("%s has files of these kinds: %v, want %v", dir, got, want)
		}
	}
}
