//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// kills is how often errand serve is killed while one Job runs.
const kills = 50

// errand serve dies fifty times at random moments while a Job of forty pods
// runs. Every container appends a line to a ledger on the host at its start and
// another at its end: none may have been cut off, none may have been started
// twice, and the Job's count agrees.
func TestKillServe(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	e := start(t)
	ledger := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(ledger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `echo "start $HOSTNAME" >> /ledger; echo "line one"; sleep 1; echo "line two"; echo "end $HOSTNAME" >> /ledger`
	manifest := job("survivor", script, "completions: 40", "parallelism: 8", "backoffLimit: 0") + fmt.Sprintf(`        volumeMounts: [{name: ledger, mountPath: /ledger}]
      volumes: [{name: ledger, hostPath: {path: %s, type: File}}]
`, ledger)
	e.apply(manifest)

	for range kills {
		// A pause of random length is the point here: what is waited for is any moment.
		pause := time.NewTimer(time.Duration(random.IntN(300)) * time.Millisecond)
		<-pause.C
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		e.start()
	}
	done := e.until("survivor", finished)

	if done.Status.Succeeded != 40 || done.Status.Failed != 0 {
		t.Errorf("the Job counts %d succeeded and %d failed, want 40 and 0: %+v", done.Status.Succeeded, done.Status.Failed, done.Status)
	}
	pods := e.pods("survivor")
	if len(pods) != 40 {
		t.Errorf("it took %d pods, want 40", len(pods))
	}
	counts := map[string]int{}
	b, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		counts[strings.TrimSpace(line)]++
	}
	for _, p := range pods {
		for _, what := range []string{"start", "end"} {
			if n := counts[what+" "+p.Name]; n != 1 {
				t.Errorf("pod %s: %d times %s, want once", p.Name, n, what)
			}
		}
		wantLines(t, e.kubectl("logs", p.Name), "line one\nline two")
	}
	if len(counts) != 80 {
		t.Errorf("the ledger tells of %d starts and ends, want 80", len(counts))
	}
}

func finished(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == v1.ConditionTrue {
			return true
		}
	}
	return false
}

// The shim is the parent of all containers: its death is theirs. Their ends
// are failures with a reason that says so, and the Job replaces them.
func TestKillShim(t *testing.T) {
	e := start(t)
	check := e.stock()
	e.apply(job("orphaned", "sleep 3600", "parallelism: 2", "completions: 2"))
	e.wait("jsonpath={.status.ready}=2", "job/orphaned")
	before := e.pods("orphaned")

	shim, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	j := e.until("orphaned", func(j *batchv1.Job) bool { return j.Status.Failed == 2 })
	if j.Status.Succeeded != 0 {
		t.Errorf("%d pods succeeded", j.Status.Succeeded)
	}
	for _, p := range before {
		out := e.kubectl("describe", "pod", p.Name)
		for _, want := range []string{"Exit Code:    137", "errand-shim"} {
			if !strings.Contains(out, want) {
				t.Errorf("kubectl describe does not say %q:\n%s", want, out)
			}
		}
	}
	// New pods run under a new shim.
	e.apply(job("after", "true"))
	e.wait("condition=complete", "job/after")
	e.kubectl("delete", "job", "orphaned", "after", "--cascade=foreground")
	check()
}

// A reboot ends every process and empties /run; the data directory stays.
func TestReboot(t *testing.T) {
	e := start(t)
	e.apply(job("rebooted", "sleep 3600"))
	e.wait("jsonpath={.status.ready}=1", "job/rebooted")
	first := e.pods("rebooted")[0].Name

	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.reboot()
	e.start()
	j := e.until("rebooted", func(j *batchv1.Job) bool { return j.Status.Failed == 1 && j.Status.Active == 1 })
	t.Logf("after the reboot: %+v", j.Status)
	out := e.kubectl("get", "pod", first, "-o", "jsonpath={.status.phase}")
	if out != "Failed" {
		t.Errorf("the pod of before is %s", out)
	}
}

// reboot does to the host what a reboot does: drain leaves no process, mount,
// namespace, cgroup or file of errand outside its data directory; but unlike a
// drain, a reboot tells the data directory nothing. So the directory's record of
// containers is put back as it was.
func (e *errand) reboot() {
	e.t.Helper()
	records := filepath.Join(e.cfg.DataDir, "cri")
	saved := e.t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(records)); err != nil {
		e.t.Fatal(err)
	}
	if err := e.Drain(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	if err := os.RemoveAll(records); err != nil {
		e.t.Fatal(err)
	}
	if err := os.CopyFS(records, os.DirFS(saved)); err != nil {
		e.t.Fatal(err)
	}
	names, err := e.Names()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := os.RemoveAll(names.RuntimeDir); err != nil {
		e.t.Fatal(err)
	}
}
