//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"errand.dev/errand/test/harness"
)

// controller is an errand controller, a process of its own, on the API of an
// errand serve.
type controller struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	said *harness.Transcript
	done chan struct{} // closed once it has ended, with code
	code int
}

// controller starts one that ends with the test at the latest.
func (e *errand) controller(name string, args ...string) *controller {
	e.t.Helper()
	return e.controllerOf(name, "errand", append([]string{"controller"}, args...)...)
}

// controllerOf starts a program that is errand controller by itself or with
// these arguments.
func (e *errand) controllerOf(name, program string, args ...string) *controller {
	e.t.Helper()
	args = append(args, "--kubeconfig", e.Kubeconfig(), "--metrics-bind-address=127.0.0.1:0", "-v=2",
		"--pod-failure-backoff=10ms", "--max-pod-failure-backoff=100ms")
	c := &controller{t: e.t, name: name, cmd: exec.Command(filepath.Join(bin, program), args...), said: harness.NewTranscript(), done: make(chan struct{})}
	c.cmd.Stderr = c.said
	if err := c.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // the code says it
		c.code = c.cmd.ProcessState.ExitCode()
		close(c.done)
	}()
	e.t.Cleanup(func() {
		c.signal(syscall.SIGCONT)
		c.signal(syscall.SIGTERM)
		c.ended()
		if c.t.Failed() {
			c.t.Logf("controller %s said:\n%s", c.name, c.said)
		}
	})
	return c
}

func (c *controller) signal(s syscall.Signal) {
	c.t.Helper()
	select {
	case <-c.done:
	default:
		if err := c.cmd.Process.Signal(s); err != nil {
			c.t.Errorf("%s to controller %s: %v", s, c.name, err)
		}
	}
}

// ended waits for its end and returns its exit code; -1 means by a signal.
func (c *controller) ended() int {
	c.t.Helper()
	select {
	case <-c.done:
		return c.code
	case <-time.After(patience):
		c.t.Fatalf("controller %s didn't end; it said:\n%s", c.name, c.said)
		return 0
	}
}

// awaitReady returns once it is ready to act; awaitLead once it may.
func (c *controller) awaitReady() {
	c.t.Helper()
	c.saying("errand controller is ready")
}

func (c *controller) awaitLead() {
	c.t.Helper()
	c.saying("errand controller has the lease")
}

// saying waits until it has said the words, and returns all that it said.
func (c *controller) saying(words string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	said, err := c.said.Await(ctx, words)
	if err != nil {
		c.t.Fatal(err)
	}
	return said
}

// get asks one of its HTTP paths.
func (c *controller) get(path string) (int, string) {
	c.t.Helper()
	found := regexp.MustCompile(`metrics at (http://\S+)/metrics`).FindStringSubmatch(c.saying("metrics at"))
	if found == nil {
		c.t.Fatalf("it doesn't say where its metrics are:\n%s", c.said)
	}
	resp, err := http.Get(found[1] + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// player plays the node for one Job: it ends its pods as fast as it is let, each
// fifth with a failure, and counts them.
type player struct {
	t      *testing.T
	tokens chan struct{}
	stop   context.CancelFunc
	done   chan struct{}

	mu                sync.Mutex
	created           map[types.UID]string
	succeeded, failed int32
}

// play starts one that ends with the test at the latest.
func (e *errand) play(job string) *player {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	w, err := e.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	p := &player{t: e.t, tokens: make(chan struct{}, 10000), stop: cancel, done: make(chan struct{}), created: map[types.UID]string{}}
	waiting := make(chan string, cap(p.tokens))
	go p.count(w, waiting)
	go p.end(ctx, e, waiting)
	e.t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// let lets n more pods end.
func (p *player) let(n int) {
	for range n {
		p.tokens <- struct{}{}
	}
}

func (p *player) count(w watch.Interface, waiting chan<- string) {
	for ev := range w.ResultChan() {
		pod, ok := ev.Object.(*v1.Pod)
		if !ok || ev.Type != watch.Added {
			continue
		}
		p.mu.Lock()
		p.created[pod.UID] = pod.Name
		p.mu.Unlock()
		waiting <- pod.Name
	}
}

func (p *player) end(ctx context.Context, e *errand, waiting <-chan string) {
	defer close(p.done)
	for n := 1; ; n++ {
		var pod string
		select {
		case pod = <-waiting:
		case <-ctx.Done():
			return
		}
		select {
		case <-p.tokens:
		case <-ctx.Done():
			return
		}
		phase := v1.PodSucceeded
		if n%5 == 0 {
			phase = v1.PodFailed
		}
		patch := fmt.Appendf(nil, `{"status":{"phase":%q}}`, phase)
		if _, err := e.client.CoreV1().Pods("default").Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			if ctx.Err() == nil {
				p.t.Errorf("end pod %s: %v", pod, err)
			}
			return
		}
		p.mu.Lock()
		if phase == v1.PodFailed {
			p.failed++
		} else {
			p.succeeded++
		}
		p.mu.Unlock()
	}
}

// wantExact compares what the Job counts with what was played: no pod more was
// created than ended, and none was counted twice or not at all.
func (p *player) wantExact(j *batchv1.Job) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := j.Status
	if s.Succeeded != *j.Spec.Completions || s.Succeeded != p.succeeded || s.Failed != p.failed || len(p.created) != int(p.succeeded+p.failed) {
		p.t.Errorf("the Job counts %d succeeded and %d failed pods, want %d and %d; %d were created", s.Succeeded, s.Failed, p.succeeded, p.failed, len(p.created))
	}
}
