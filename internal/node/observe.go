package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/cri-client/pkg/logs"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/apipod"
)

// Bounds on termination messages, as the API documents them.
const (
	maxTerminationMessage = 4096 // bytes of the file
	maxTerminationLog     = 2048 // bytes of the log
	maxTerminationLines   = 80
)

// observe asks the runtime for everything it has of a pod. ended caches runs
// that are over by container ID: they don't change any more.
func (n *Node) observe(ctx context.Context, uid types.UID, pod *v1.Pod, ended map[string]*runtimepod.Container) (*runtimepod.Pod, error) {
	rt := &runtimepod.Pod{UID: uid}
	selector := runtimepod.UIDSelector(uid)
	sandboxes, err := n.cfg.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list the pod's sandboxes: %w", err)
	}
	for _, s := range sandboxes {
		resp, err := n.cfg.Runtime.PodSandboxStatus(ctx, s.GetId(), false)
		if crierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask for the status of sandbox %s: %w", s.GetId(), err)
		}
		rt.Namespace, rt.Name = s.GetMetadata().GetNamespace(), s.GetMetadata().GetName()
		rt.Job = runtimepod.JobFrom(s.GetAnnotations())
		rt.Sandboxes = append(rt.Sandboxes, runtimepod.FromSandbox(resp.GetStatus()))
	}
	containers, err := n.cfg.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list the pod's containers: %w", err)
	}
	for _, listed := range containers {
		c, err := n.observeContainer(ctx, listed, pod, ended)
		if err != nil {
			return nil, err
		}
		if c != nil {
			rt.Containers = append(rt.Containers, c)
		}
	}
	rt.Sort()
	return rt, nil
}

// observeContainer returns nil for a container that has just been removed.
func (n *Node) observeContainer(ctx context.Context, listed *runtimeapi.Container, pod *v1.Pod, ended map[string]*runtimepod.Container) (*runtimepod.Container, error) {
	if c := ended[listed.GetId()]; c != nil {
		return c, nil
	}
	resp, err := n.cfg.Runtime.ContainerStatus(ctx, listed.GetId(), false)
	if crierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the status of container %s: %w", listed.GetId(), err)
	}
	c := runtimepod.FromContainer(resp.GetStatus(), listed.GetPodSandboxId())
	if c.State == runtimepod.Exited {
		n.addTerminationMessage(ctx, pod, c)
		n.traceRun(pod, c)
		ended[c.ID] = c
	}
	return c, nil
}

// traceRun records a run of a container that is over. What the API knows the end
// of was recorded then.
func (n *Node) traceRun(pod *v1.Pod, c *runtimepod.Container) {
	if n.cfg.Traces == nil || pod == nil || c.StartedAt.IsZero() || isTerminal(pod.Status.Phase) {
		return
	}
	n.cfg.Traces.Pod(apipod.Identity(pod)).Record(podtrace.Done{
		Name: "ContainerRun", Container: c.Name, Detail: fmt.Sprintf("exit code %d", c.ExitCode), Start: c.StartedAt, End: c.FinishedAt,
	})
}

// addTerminationMessage adds what the container left in its termination message
// file or, if it failed and its policy says so, the end of its log.
func (n *Node) addTerminationMessage(ctx context.Context, pod *v1.Pod, c *runtimepod.Container) {
	spec := findContainer(pod, c.Name)
	if spec == nil {
		return
	}
	message := ""
	if spec.TerminationMessagePath != "" {
		message = n.readTerminationFile(pod.UID, c)
	}
	if message == "" && c.ExitCode != 0 && !c.StartedAt.IsZero() &&
		spec.TerminationMessagePolicy == v1.TerminationMessageFallbackToLogsOnError {
		message = readLogTail(ctx, c.LogPath)
	}
	switch {
	case message == "":
	case c.Message == "":
		c.Message = message
	default:
		c.Message += ": " + message
	}
}

func (n *Node) readTerminationFile(uid types.UID, c *runtimepod.Container) string {
	path := n.terminationFile(uid, c.Name, c.RestartCount)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("Error on reading termination log %s: %v", path, err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > maxTerminationMessage {
		_, _ = f.Seek(-maxTerminationMessage, io.SeekEnd)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTerminationMessage))
	if err != nil {
		return fmt.Sprintf("Error on reading termination log %s: %v", path, err)
	}
	return string(data)
}

func readLogTail(ctx context.Context, path string) string {
	lines := int64(maxTerminationLines)
	var buf bytes.Buffer
	if err := logs.ReadLogs(ctx, path, "", &logs.LogOptions{TailLines: &lines}, nil, &buf, &buf); err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	tail := buf.Bytes()
	return string(tail[max(0, len(tail)-maxTerminationLog):])
}

// podDir holds what a pod needs besides its volumes: hosts file, termination
// messages.
func (n *Node) podDir(uid types.UID) string { return filepath.Join(n.cfg.RootDir, string(uid)) }

// terminationFile is where run number restarts of a container leaves its
// termination message. The name follows from the run, so that it is found again
// without asking the runtime for mounts.
func (n *Node) terminationFile(uid types.UID, container string, restarts int32) string {
	return filepath.Join(n.podDir(uid), fmt.Sprintf("termination.%s.%d", container, restarts))
}

func findContainer(pod *v1.Pod, name string) *v1.Container {
	if pod == nil {
		return nil
	}
	var found *v1.Container
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		if c.Name == name {
			found = c
		}
		return found == nil
	})
	return found
}
