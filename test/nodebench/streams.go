package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/benchrig"
)

const (
	// commands is how many commands are run in a pod, by each protocol.
	commands = 31
	// lines is how many lines of a log are timed.
	lines = 201
)

// start creates a pod and returns once it runs.
func start(ctx context.Context, client kubernetes.Interface, name string, spec v1.PodSpec) error {
	spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
	pods := client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return err
	}
	defer w.Stop()
	if _, err := pods.Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return awaitPod(w, v1.PodRunning)
}

// execs measures a command in a container, from a client that is there already: a
// new connection each time, as kubectl makes one.
func (b *bench) execs(ctx context.Context, r *benchrig.Run, client kubernetes.Interface, l launcher) error {
	if err := start(ctx, client, "target", benchrig.Pod("sleep", "3600")); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig())
	if err != nil {
		return err
	}
	request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("target").SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Command: []string{"true"}, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	protocols := []struct {
		name     string
		executor func() (remotecommand.Executor, error)
	}{
		{"WebSocket", func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(rest.CopyConfig(config), "GET", request.String())
		}},
		{"SPDY", func() (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(rest.CopyConfig(config), "POST", request)
		}},
	}
	for _, p := range protocols {
		var took benchrig.Figures
		for range commands {
			began := time.Now()
			executor, err := p.executor()
			if err != nil {
				return err
			}
			var out bytes.Buffer
			if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &out}); err != nil {
				return fmt.Errorf("exec over %s: %w: %s", p.name, err, out.String())
			}
			took = append(took, ms(time.Since(began)))
		}
		b.row(fmt.Sprintf("exec true over %s: %s", p.name, l.name), "30 ms", "ms", took)
	}
	return nil
}

// logs measures how long after it was written a line is in the stream of a client
// that follows the log. What writes it is cat, a process away from here: its
// wake-up counts.
func (b *bench) logs(ctx context.Context, client kubernetes.Interface, l launcher) error {
	dir, err := os.MkdirTemp(b.Dir(), "lines")
	if err != nil {
		return err
	}
	fifo, err := makeFIFO(filepath.Join(dir, "fifo"))
	if err != nil {
		return err
	}
	defer fifo.Close()
	if err := start(ctx, client, "speaker", withFolder(benchrig.Pod("cat", "/folder/fifo"), dir)); err != nil {
		return err
	}
	stream, err := client.CoreV1().Pods("default").GetLogs("speaker", &v1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	took, err := timeLines(fifo, bufio.NewReader(stream))
	if err != nil {
		return err
	}
	b.row("log line written → seen by logs -f: "+l.name, "10 ms", "ms", took)
	return nil
}

// timeLines writes lines and times how long each is on its way.
func timeLines(to *os.File, from *bufio.Reader) (benchrig.Figures, error) {
	var took benchrig.Figures
	for i := range lines {
		line := fmt.Sprintf("line %d", i)
		began := time.Now()
		if _, err := fmt.Fprintln(to, line); err != nil {
			return nil, err
		}
		seen, err := from.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("follow the log: %w", err)
		}
		if strings.TrimSpace(seen) != line {
			return nil, fmt.Errorf("the log has %q after %q was written", seen, line)
		}
		took = append(took, ms(time.Since(began)))
	}
	return took, nil
}

// makeFIFO makes a FIFO and opens it to write, without waiting for a reader.
func makeFIFO(path string) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o644); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return f, nil
}

// withFolder gives a pod a folder of this machine, at /folder.
func withFolder(pod v1.PodSpec, dir string) v1.PodSpec {
	pod.Volumes = []v1.Volume{{Name: "folder", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: dir}}}}
	pod.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "folder", MountPath: "/folder"}}
	return pod
}
