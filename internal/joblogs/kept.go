package joblogs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/node/keptlogs"
)

// keptRun is a run whose log a node keeps.
type keptRun struct {
	keptlogs.Run
	node string
}

func (r *keptRun) attempt() Attempt {
	a := Attempt{
		Pod: r.PodName, PodUID: r.PodUID, Container: r.Container, RestartCount: r.RestartCount,
		StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, node: r.node,
	}
	if r.Ended != nil {
		a.ExitCode, a.Reason = &r.Ended.ExitCode, r.Ended.Reason
	}
	return a
}

// errandsVersion is what errand's nodes have in their version, and no kubelet.
const errandsVersion = "+errand."

// OpenKept opens the log of a run of a Job's pod that a node keeps, with a time before each line.
func OpenKept(ctx context.Context, client kubernetes.Interface, job *batchv1.Job, pod types.UID, container string, restartCount int32) (io.ReadCloser, error) {
	j := &Job{client: client, namespace: job.Namespace, name: job.Name, uid: job.UID}
	kept, err := j.kept(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range kept {
		if a := r.attempt(); a.id() == (id{pod, container, restartCount}) {
			return j.openKept(ctx, &a, true)
		}
	}
	return nil, errors.New("no node keeps it")
}

// kept asks all of errand's nodes for what they keep of Jobs of this name. An error
// that apierrors.IsForbidden tells of says that the reader may not ask.
func (j *Job) kept(ctx context.Context) ([]keptRun, error) {
	nodes, err := j.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var all []keptRun
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if !strings.Contains(node.Status.NodeInfo.KubeletVersion, errandsVersion) {
			continue
		}
		data, err := j.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node.Name).SubResource("proxy").
			Suffix("keptLogs", j.namespace, j.name).Do(ctx).Raw()
		if apierrors.IsNotFound(err) {
			continue // an errand that keeps none, or a node that has just gone
		}
		if err != nil {
			return nil, fmt.Errorf("ask node %s for the logs that it keeps: %w", node.Name, err)
		}
		var list keptlogs.List
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("ask node %s for the logs that it keeps: %w", node.Name, err)
		}
		for _, r := range list.Runs {
			all = append(all, keptRun{r, node.Name})
		}
	}
	return all, nil
}
