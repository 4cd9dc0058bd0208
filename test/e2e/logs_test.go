//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What kubectl logs shows of real containers.
func TestLogs(t *testing.T) {
	e := start(t)

	t.Run("--follow", func(t *testing.T) {
		e := e.with(t)
		g := newGate(t)
		e.applyPod("talks", fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "echo one; %s; echo two; echo three >&2"], volumeMounts: [%s]}]
  volumes: [%s]
`, passGate, gateMount, g.volume()))
		e.wait("condition=Ready", "pod/talks")
		follow := e.followLogs("talks")
		if got := <-follow; got != "one" {
			t.Errorf("the first line followed is %q", got)
		}
		g.open(1)
		var rest []string
		for line := range follow {
			rest = append(rest, line)
		}
		// Output and error output are two streams; their order isn't promised.
		wantLines(t, e.kubectl("logs", "talks"), "one\n"+strings.Join(rest, "\n"))
		if len(rest) != 2 || !strings.Contains(strings.Join(rest, " "), "two") || !strings.Contains(strings.Join(rest, " "), "three") {
			t.Errorf("the lines that came while it followed are %q", rest)
		}
	})

	t.Run("--previous", func(t *testing.T) {
		e := e.with(t)
		e.apply(strings.Replace(podManifest("retries", `
  containers:
  - name: work
    image: busybox:latest
    command: [sh, -c, "echo >> /disk/runs; n=$(wc -l < /disk/runs); echo run $n; [ $n = 1 ] || sleep 3600; exit 1"]
    volumeMounts: [{name: disk, mountPath: /disk}]
  volumes: [{name: disk, emptyDir: {}}]
`), "Never", "OnFailure", 1))
		e.wait("jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/retries")
		e.wait("condition=Ready", "pod/retries")
		wantLines(t, e.kubectl("logs", "retries", "--previous"), "run 1")
		follow := e.followLogs("retries") // the shell may not have come to its line yet
		if got := <-follow; got != "run 2" {
			t.Errorf("the second run says %q", got)
		}
		e.kubectl("delete", "pod", "retries")
		msg := e.refused("", "logs", "talks", "--previous")
		if want := `previous terminated container "work" in pod "talks" not found`; !strings.Contains(msg, want) {
			t.Errorf("without a previous run, kubectl says %q, want %q", msg, want)
		}
	})

	t.Run("--tail, --since, --timestamps", func(t *testing.T) {
		e := e.with(t)
		// The sleep is the distance of the lines' times.
		e.runPod("dated", `
  containers: [{name: work, image: "busybox:latest", command: [sh, -c, "echo old; echo older; sleep 2; echo new"]}]
`)
		wantLines(t, e.kubectl("logs", "dated", "--tail=2"), "older\nnew")
		wantLines(t, e.kubectl("logs", "dated", "--tail=0"), "")
		wantLines(t, e.kubectl("logs", "dated", "--since=1h"), "old\nolder\nnew")
		stamped := lines(e.kubectl("logs", "dated", "--timestamps"))
		if len(stamped) != 3 {
			t.Fatalf("with timestamps: %q", stamped)
		}
		var times []time.Time
		for i, want := range []string{"old", "older", "new"} {
			stamp, text, _ := strings.Cut(stamped[i], " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil || text != want {
				t.Errorf("line %d with its timestamp is %q: %v", i+1, stamped[i], err)
			}
			times = append(times, at)
		}
		// A line's time is when it is read: that of the second may be a little late.
		if times[2].Sub(times[1]) < 1900*time.Millisecond || times[1].Before(times[0]) {
			t.Errorf("the lines' times are %v", times)
		}
		wantLines(t, e.kubectl("logs", "dated", "--since-time="+times[2].Truncate(time.Second).Format(time.RFC3339)), "new")
		// All are older than that by now, if not by much.
		if out := e.kubectl("logs", "dated", "--since=1s"); strings.Contains(out, "old") {
			t.Errorf("of the last second it shows %q", out)
		}
	})

	t.Run("--container, --all-containers", func(t *testing.T) {
		e := e.with(t)
		e.applyPod("chorus", `
  initContainers: [{name: before, image: "busybox:latest", command: [echo, from before]}]
  containers:
  - {name: one, image: "busybox:latest", command: [echo, from one]}
  - {name: two, image: "busybox:latest", command: [echo, from two]}
`)
		e.wait("jsonpath={.status.phase}=Succeeded", "pod/chorus")
		for _, name := range []string{"before", "one", "two"} {
			wantLines(t, e.kubectl("logs", "chorus", "-c", name), "from "+name)
		}
		// kubectl asks for them in any order.
		wantLines(t, sorted(e.kubectl("logs", "chorus", "--all-containers")), "from before\nfrom one\nfrom two")
		wantLines(t, sorted(e.kubectl("logs", "chorus", "--all-containers", "--prefix")), `
			[pod/chorus/before] from before
			[pod/chorus/one] from one
			[pod/chorus/two] from two`)
		if r := e.try("", "logs", "chorus"); r.Stdout != "from one\n" || !strings.Contains(r.Stderr, `Defaulted container "one" out of: one, two, before (init)`) {
			t.Errorf("without a container's name: %q, and %q", r.Stdout, r.Stderr)
		}
		msg := e.refused("", "logs", "chorus", "-c", "three")
		if want := "container three is not valid for pod chorus"; !strings.Contains(msg, want) {
			t.Errorf("of a container that there isn't, kubectl says %q, want %q", msg, want)
		}
	})

	t.Run("of one that hasn't begun", func(t *testing.T) {
		e := e.with(t)
		e.applyPod("waits", `
  containers: [{name: work, image: "absent:latest", imagePullPolicy: Never}]
`)
		e.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull", "pod/waits")
		msg := e.refused("", "logs", "waits")
		if want := `container "work" in pod "waits" is waiting to start: ErrImageNeverPull`; !strings.Contains(msg, want) {
			t.Errorf("kubectl says %q, want %q", msg, want)
		}
	})
}

func sorted(s string) string {
	l := lines(s)
	slices.Sort(l)
	return strings.Join(l, "\n")
}

// followLogs runs kubectl logs --follow. What it prints comes line by line; the
// channel is closed when it has ended, and it must end well, unless the test
// did before.
func (e *errand) followLogs(pod string) <-chan string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), "logs", "--follow", pod)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig())
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	lines, ended := make(chan string), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		defer cancel()
		for scan := bufio.NewScanner(out); scan.Scan(); {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
			}
		}
		if err := cmd.Wait(); err != nil && e.t.Context().Err() == nil {
			e.t.Errorf("kubectl logs --follow %s: %v", pod, err)
		}
	}()
	e.t.Cleanup(func() { <-ended })
	return lines
}
