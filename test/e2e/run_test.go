//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/test/harness"
)

// endsAtOnce is a script that goes on until it is told to end, and then doesn't take
// its grace period.
const endsAtOnce = "trap 'exit 1' TERM; sleep 1000 & wait"

// own runs one of errand's commands that are this errand's clients.
func (e *errand) own(args ...string) harness.Result {
	e.t.Helper()
	return e.ownIn("", args...)
}

// ownIn does so with stdin as input.
func (e *errand) ownIn(stdin string, args ...string) harness.Result {
	e.t.Helper()
	return command{args: args, stdin: []byte(stdin), env: []string{"ERRAND_DATA_DIR=" + e.cfg.DataDir}}.run(e.t)
}

// underWay is such a command while it runs.
type underWay struct {
	t         *testing.T
	cmd       *exec.Cmd
	out, said *harness.Transcript
}

// begin starts one; it is killed when the test ends before it does.
func (e *errand) begin(args ...string) *underWay {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	u := &underWay{t: e.t, cmd: exec.CommandContext(ctx, filepath.Join(bin, "errand"), args...), out: harness.NewTranscript(), said: harness.NewTranscript()}
	e.t.Cleanup(cancel)
	u.cmd.Env = append(os.Environ(), "ERRAND_DATA_DIR="+e.cfg.DataDir)
	u.cmd.Stdout, u.cmd.Stderr = u.out, u.said
	if err := u.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	return u
}

// await waits until it has said something, in its log or about the Job.
func (u *underWay) await(in *harness.Transcript, words string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	if _, err := in.Await(ctx, words); err != nil {
		u.t.Fatal(err)
	}
}

func (u *underWay) signal(s os.Signal) {
	u.t.Helper()
	if err := u.cmd.Process.Signal(s); err != nil {
		u.t.Fatal(err)
	}
}

// end waits for its end.
func (u *underWay) end() harness.Result {
	u.t.Helper()
	err := u.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	return harness.Result{Stdout: u.out.String(), Stderr: u.said.String(), Code: u.cmd.ProcessState.ExitCode()}
}

// wantPrinted checks all of what a command printed.
func wantPrinted(t *testing.T, r harness.Result, code int, stdout, stderr string) {
	t.Helper()
	if r.Code != code || r.Stdout != stdout || r.Stderr != stderr {
		t.Errorf("exit code %d, stdout\n%sstderr\n%swant %d\n%s\n%s", r.Code, r.Stdout, r.Stderr, code, stdout, stderr)
	}
}

// wantNoJob checks that a Job is gone, and so are its pods.
func (e *errand) wantNoJob(name string) {
	e.t.Helper()
	if job, err := e.client.BatchV1().Jobs("default").Get(e.t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		e.t.Errorf("there is a job/%s: %+v, %v", name, job.ObjectMeta, err)
	}
	if pods := e.pods(name); len(pods) > 0 {
		e.t.Errorf("there are %d pods of job/%s", len(pods), name)
	}
}

// One command runs a Job and exits with its result.
func TestRun(t *testing.T) {
	e := start(t)
	busybox := []string{"--image", "busybox", "--image-pull-policy", "IfNotPresent"}
	run := func(args ...string) []string {
		return append(append([]string{"run"}, args[0]), append(busybox, args[1:]...)...)
	}

	t.Run("success", func(t *testing.T) {
		r := e.with(t).own(run("good", "-e", "WHO=you", "--", "sh", "-c", "echo hello $WHO; printf end")...)
		wantPrinted(t, r, 0, "hello you\nend", "errand: job/good created\nerrand: job/good is Complete\n")
	})
	t.Run("failure", func(t *testing.T) {
		r := e.with(t).own(run("bad", "--", "sh", "-c", "echo out >&2; exit 7")...)
		pod := e.pods("bad")[0].Name
		wantPrinted(t, r, 7, "out\n", "errand: job/bad created\nerrand: pod "+pod+" failed: container main ended with exit code 7\n"+
			"errand: job/bad has Failed: BackoffLimitExceeded: Job has reached the specified backoff limit\n")
	})
	t.Run("restarts in one pod, which the Job deletes", func(t *testing.T) {
		r := e.with(t).own(run("restarts", "--restart", "OnFailure", "--", "sh", "-c", "echo once; exit 4")...)
		wantResult(t, r, 4, "once\n", "BackoffLimitExceeded")
	})
	t.Run("the deadline", func(t *testing.T) {
		r := e.with(t).own(run("late", "--timeout", "1s", "--", "sh", "-c", endsAtOnce)...)
		wantResult(t, r, 1, "job/late has Failed: DeadlineExceeded: ")
	})
	t.Run("several pods", func(t *testing.T) {
		e := e.with(t)
		r := e.own(run("many", "--completions", "3", "--parallelism", "2", "--indexed", "--rm", "--", "sh", "-c", "echo share $JOB_COMPLETION_INDEX")...)
		wantResult(t, r, 0, "job/many is Complete")
		for _, line := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
			var index string
			if head, tail, found := strings.Cut(line, "] share "); found && strings.HasPrefix(head, "[many-"+tail+"-") {
				index = tail
			}
			if index == "" || len(strings.Split(r.Stdout, "\n")) != 4 {
				t.Errorf("stdout\n%s", r.Stdout)
			}
		}
		if _, err := e.client.BatchV1().Jobs("default").Get(t.Context(), "many", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("--rm leaves it: %v", err)
		}
	})
	t.Run("a manifest", func(t *testing.T) {
		e := e.with(t)
		wantResult(t, e.ownIn(job("fromfile", "echo from a file"), "run", "-f", "-"), 0, "from a file\n")
		wantResult(t, e.ownIn(job("fromfile", "true"), "run", "-f", "-"), 1, `jobs.batch "fromfile" already exists in the namespace default: run it again by errand rerun job/fromfile`)
		wantResult(t, e.ownIn(job("wrong", "true", "paralelism: 2"), "run", "-f", "-"), 1, `unknown field "spec.paralelism"`)
		wantResult(t, e.ownIn(job("one", "true")+"---\n"+job("two", "true"), "run", "-f", "-"), 1, "standard input holds 2 Jobs, and errand run takes one", "errand wait job/one job/two")
		wantResult(t, e.own("run", "-f", "../../examples/cronjob.yaml"), 1, "cronjob.yaml holds CronJob/every-minute of batch/v1")
		e.wantNoJob("wrong")
	})
	t.Run("detached", func(t *testing.T) {
		e := e.with(t)
		wantPrinted(t, e.own(run("away", "--detach", "--", "true")...), 0, "away\n", "")
		var made batchv1.Job
		r := e.own(run("awayjson", "-d", "-o", "json", "--", "true")...)
		if err := json.Unmarshal([]byte(r.Stdout), &made); err != nil || made.Kind != "Job" || made.Name != "awayjson" || made.ManagedFields != nil {
			t.Errorf("-o json: %v\n%s", err, r.Stdout)
		}
		wantPrinted(t, e.own(run("awayname", "-d", "-o", "name", "--", "true")...), 0, "job.batch/awayname\n", "")
	})
	t.Run("no errand", func(t *testing.T) {
		none := filepath.Join(t.TempDir(), "none")
		wantResult(t, runErrand(t, append(run("x"), "--data-dir", none)...), 1, "there is no errand at "+none+": start one with errand serve")
		elsewhere := filepath.Join(t.TempDir(), "elsewhere")
		wantResult(t, runErrand(t, append(run("x"), "--kubeconfig", elsewhere)...), 1, elsewhere)
	})
	t.Run("any cluster, by its kubeconfig", func(t *testing.T) {
		kubeconfig := []string{"KUBECONFIG=" + e.Kubeconfig(), "ERRAND_DATA_DIR=" + filepath.Join(t.TempDir(), "none")}
		wantResult(t, runErrand(t, append(run("there", "--kubeconfig", e.Kubeconfig(), "--rm"), "--", "true")...), 0, "job/there is Complete")
		r := command{args: append(run("here", "--context", "errand", "--rm"), "--", "true"), env: kubeconfig}.run(t)
		wantResult(t, r, 0, "job/here is Complete")
		r = command{args: append(run("nowhere", "--context", "other"), "--", "true"), env: kubeconfig}.run(t)
		wantResult(t, r, 1, `context "other" does not exist`)
	})
}

// Whoever gives up leaves nothing: Ctrl-C, or timeout(1), ends the Job, too.
func TestRunInterrupted(t *testing.T) {
	e := start(t)
	t.Run("Ctrl-C", func(t *testing.T) {
		e := e.with(t)
		u := e.begin("run", "held", "--image", "busybox", "--", "sh", "-c", "trap 'echo cleaned up; exit 0' TERM; echo up; sleep 1000 & wait")
		u.await(u.out, "up\n")
		u.signal(syscall.SIGINT)
		r := u.end()
		wantPrinted(t, r, 130, "up\ncleaned up\n", "errand: job/held created\nerrand: deleting job/held and its pods; a second Ctrl-C leaves at once\nerrand: job/held was deleted before it had ended\n")
		e.wantNoJob("held")
	})
	t.Run("the signal's echo", func(t *testing.T) {
		e := e.with(t)
		// Its end takes long enough for the second signal to meet it.
		u := e.begin("run", "echo", "--image", "busybox", "--", "sh", "-c", "trap 'sleep 1; exit 1' TERM; echo up; sleep 1000 & wait")
		u.await(u.out, "up\n")
		u.signal(syscall.SIGTERM)
		u.await(u.said, "deleting")
		u.signal(syscall.SIGTERM)
		wantResult(t, u.end(), 130)
		e.wantNoJob("echo")
	})
	t.Run("a second Ctrl-C", func(t *testing.T) {
		e := e.with(t)
		// It takes no notice of SIGTERM, and so its Job goes only after its grace period.
		u := e.begin("run", "stubborn", "--image", "busybox", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
		u.await(u.out, "up\n")
		u.signal(syscall.SIGINT)
		u.await(u.said, ": it waits for a pod to end, which has 30 s for it\n")
		u.signal(syscall.SIGINT)
		if u.end(); u.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
			t.Errorf("it ended by %s", u.cmd.ProcessState)
		}
		e.kubectl("delete", "pod", "-l", "job-name=stubborn", "--force", "--grace-period=0")
		e.wait("delete", "job/stubborn")
	})
}

// What holds a Job up is said: an image that doesn't exist (kubernetes#122300 has the
// Job that hangs for ever), one that takes its time, a machine that is too small.
func TestKK122300_RunSaysWhatHoldsItUp(t *testing.T) {
	e := start(t)
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"no-image":  {[]string{"--image", "no-such-image"}, []string{"errand: pod no-image-", " can't get the image no-such-image, which is tried again: ", "not found"}},
		"too-small": {[]string{"--image", "busybox", "--cpus", "5000"}, []string{"errand: pod too-small-", " waits for a node: 0/1 nodes are available: 1 Insufficient cpu"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.with(t)
			u := e.begin(append([]string{"run", name}, tc.args...)...)
			u.await(u.said, tc.want[len(tc.want)-1])
			u.signal(syscall.SIGINT)
			wantResult(t, u.end(), 130, tc.want...)
			e.wantNoJob(name)
		})
	}
	t.Run("suspended, and resumed by another", func(t *testing.T) {
		e := e.with(t)
		manifest := filepath.Join(t.TempDir(), "job.yaml")
		if err := os.WriteFile(manifest, []byte(job("sus", "echo at last", "suspend: true")), 0o600); err != nil {
			t.Fatal(err)
		}
		u := e.begin("run", "-f", manifest)
		u.await(u.said, "errand: job/sus is suspended, and runs once somebody resumes it: kubectl patch job sus -n default -p ")
		e.kubectl("patch", "job", "sus", "-p", `{"spec":{"suspend":false}}`)
		wantResult(t, u.end(), 0, "at last\n", "job/sus is Complete")
	})
	t.Run("another's Job", func(t *testing.T) {
		e := e.with(t)
		wantResult(t, e.ownIn(job("theirs", "true", "managedBy: example.com/theirs"), "run", "-d", "-f", "-"), 0)
		wantResult(t, e.own("wait", "job/theirs", "--timeout", "100ms"), 124, `job/theirs is managed by "example.com/theirs" (spec.managedBy)`)
	})
}

// What reads the output leaves when it has had enough: the Job isn't lost for it.
func TestRunIntoAPipe(t *testing.T) {
	e := start(t)
	r := command{env: []string{"ERRAND=" + filepath.Join(bin, "errand"), "ERRAND_DATA_DIR=" + e.cfg.DataDir}, args: []string{
		"-c", `"$ERRAND" run piped --image busybox -- sh -c 'echo one; sleep 1; echo two' | head -n 1`,
	}}.runAs(t, "/bin/sh", nil)
	wantPrinted(t, r, 0, "one\n", "errand: job/piped created\n")
	e.wait("condition=complete", "job/piped")
}

// errand can be killed and started anew while somebody follows a Job: no line is lost
// or comes twice. Also where any free port will do, it is found again.
func TestRunOutlivesErrand(t *testing.T) {
	e := start(t, "--listen", "127.0.0.1:0")
	u := e.begin("run", "long", "--image", "busybox", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 1; done; echo end")
	u.await(u.out, "line 2\n")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	u.await(u.said, "the API doesn't answer, and is tried again: ")
	e.start()
	r := u.end()
	wantResult(t, r, 0, "the API answers again", "job/long is Complete")
	wantLines(t, r.Stdout, "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nend")
}

// kubectl wait has one condition to wait for, and hangs when the other comes.
func TestKK100248_WaitForDoneOrFailed(t *testing.T) {
	e := start(t)
	e.apply(job("good", "true") + "---\n" + job("bad", "exit 3", "backoffLimit: 0"))
	t.Run("both", func(t *testing.T) {
		r := e.with(t).own("wait", "job/good", "jobs.batch/bad")
		wantResult(t, r, 1, "job/good is Complete\n", "job/bad has Failed: BackoffLimitExceeded: Job has reached the specified backoff limit\n")
	})
	t.Run("ended already", func(t *testing.T) {
		wantPrinted(t, e.with(t).own("wait", "good"), 0, "job/good is Complete\n", "")
		// Whoever calls it in a loop has it cheaply.
		r := command{args: []string{"wait", "job/good", "--data-dir", e.cfg.DataDir}}.runAs(t, filepath.Join(bin, "errand"), func(cmd *exec.Cmd) {
			t.Cleanup(func() {
				if used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); used > 300*time.Millisecond {
					t.Errorf("it took %s of CPU", used)
				}
			})
		})
		wantResult(t, r, 0)
	})
	t.Run("none", func(t *testing.T) {
		wantPrinted(t, e.with(t).own("wait", "job/none", "job/good"), 1, "", "errand: there is no job/none in the namespace default\n")
		wantResult(t, e.with(t).own("wait", "pod/good"), 2, `errand wait takes Jobs, but was given "pod/good"`)
	})
	t.Run("failed while waited for", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("later", "exit 3", "backoffLimit: 0", "suspend: true"))
		u := e.begin("wait", "later")
		u.await(u.said, "job/later is suspended")
		e.kubectl("patch", "job", "later", "-p", `{"spec":{"suspend":false}}`)
		wantResult(t, u.end(), 1, "job/later has Failed: BackoffLimitExceeded")
	})
	e.apply(job("sleeps", "sleep 1000"))
	e.wait("jsonpath={.status.ready}=1", "job/sleeps")
	t.Run("timeout", func(t *testing.T) {
		r := e.with(t).own("wait", "job/sleeps", "--timeout", "200ms")
		wantPrinted(t, r, 124, "", "job/sleeps has not ended: 0 of 1 succeeded, 1 active, 0 failed\nerrand: waited for 200ms\n")
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("paused", "true", "suspend: true"))
		u := e.begin("wait", "job/sleeps", "job/paused")
		u.await(u.said, "job/paused is suspended")
		u.signal(syscall.SIGINT)
		wantResult(t, u.end(), 130)
		e.kubectl("get", "job", "sleeps")
	})
	t.Run("deleted", func(t *testing.T) {
		e := e.with(t)
		u := e.begin("wait", "job/paused", "job/sleeps")
		u.await(u.said, "job/paused is suspended")
		e.kubectl("delete", "job", "sleeps", "paused")
		wantResult(t, u.end(), 124, "job/sleeps was deleted before it had ended\n", "job/paused was deleted before it had ended\n")
	})
}

// A Job can be run again, whatever became of it, and from wherever it came.
func TestKK77396_RunAgain(t *testing.T) {
	e := start(t)
	e.apply(job("work", "echo work; exit 5", "backoffLimit: 0"))
	e.wait("condition=failed", "job/work")
	t.Run("under the next name", func(t *testing.T) {
		e := e.with(t)
		wantResult(t, e.own("rerun", "job/work"), 5, "work\n", "job/work-2 created", "job/work-2 has Failed: BackoffLimitExceeded")
		wantPrinted(t, e.own("rerun", "work-2", "--detach"), 0, "work-3\n", "")
		wantResult(t, e.own("wait", "work-3"), 1, "job/work-3 has Failed")
	})
	t.Run("under a name of its own", func(t *testing.T) {
		wantResult(t, e.with(t).own("rerun", "job/work", "--name", "mine", "--rm"), 5, "job/mine has Failed")
	})
	t.Run("in its place", func(t *testing.T) {
		e := e.with(t)
		before := e.kubectl("get", "job", "work", "-o", "jsonpath={.metadata.uid}")
		wantResult(t, e.own("rerun", "job/work", "--replace"), 5, "work\n", "job/work has Failed")
		if after := e.kubectl("get", "job", "work", "-o", "jsonpath={.metadata.uid}"); after == before {
			t.Error("it is the same Job")
		}
		if n := len(e.pods("work")); n != 1 {
			t.Errorf("there are %d pods of job/work, want the new one's alone", n)
		}
	})
	t.Run("one that runs, in its place", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("busy", "sleep 1000"))
		e.wait("jsonpath={.status.ready}=1", "job/busy")
		wantResult(t, e.own("rerun", "job/busy", "--replace", "--detach"), 0, "errand: job/busy has not ended; it is deleted with its pods\n", "busy\n")
		e.wait("jsonpath={.status.ready}=1", "job/busy")
		e.kubectl("delete", "job", "busy")
	})
	t.Run("not what the API refuses", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("create", "quota", "none", "--hard=count/jobs.batch=1")
		wantResult(t, e.own("rerun", "job/work", "--replace"), 1, "job/work can't be created anew, and is left as it is: ", "exceeded quota")
		e.kubectl("get", "job", "work")
		e.kubectl("delete", "quota", "none")
	})
	t.Run("completion asks the API", func(t *testing.T) {
		e := e.with(t)
		wantResult(t, e.own("__complete", "rerun", "job/wor"), 0, "job/work\n")
		if r := e.own("__complete", "wait", "job/work", "job/wor"); strings.Contains(r.Stdout, "job/work\n") {
			t.Errorf("it completes to what stands there already:\n%s", r.Stdout)
		}
	})
	t.Run("one of a CronJob's, suspended", func(t *testing.T) {
		e := e.with(t)
		e.apply(`apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 29 2 *"
  jobTemplate: {spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [echo, tonight]}]}}}}
`)
		e.kubectl("create", "job", "tonight", "--from=cronjob/nightly")
		wantResult(t, e.own("rerun", "job/tonight"), 0, "tonight\n", "job/tonight-2 is Complete")
		if owners := e.kubectl("get", "job", "tonight-2", "-o", "jsonpath={.metadata.ownerReferences}"); owners != "" {
			t.Errorf("it belongs to %s", owners)
		}
	})
}
