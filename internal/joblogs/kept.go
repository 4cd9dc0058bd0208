package joblogs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"errand.dev/errand/internal/node/keptlogs"
	"errand.dev/errand/internal/version"
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

// nodeTime is how long a node may take to say what it keeps.
const nodeTime = 10 * time.Second

// answer is what nodes say that they keep of Jobs of one name.
type answer struct {
	runs []keptRun
	// forbidden, unless nil, says that the reader may not ask, unanswered that there was
	// no answer; both leave runs out.
	forbidden, unanswered error
}

// failed is the answer that there is none, because of err.
func failed(err error) answer {
	if apierrors.IsForbidden(err) {
		return answer{forbidden: err}
	}
	return answer{unanswered: err}
}

// add takes up another node's answer. What is forbidden at one is at most others, and
// told once.
func (a *answer) add(other answer) {
	a.runs = append(a.runs, other.runs...)
	a.forbidden = cmp.Or(a.forbidden, other.forbidden)
	a.unanswered = errors.Join(a.unanswered, other.unanswered)
}

// OpenKept opens the log of a run of a Job's pod that a node keeps, with a time before each line.
func OpenKept(ctx context.Context, client kubernetes.Interface, job *batchv1.Job, pod types.UID, container string, restartCount int32) (io.ReadCloser, error) {
	j := &Job{client: client, namespace: job.Namespace, name: job.Name, uid: job.UID}
	kept := j.kept(ctx)
	for _, r := range kept.runs {
		if a := r.attempt(); a.id() == (id{pod, container, restartCount}) {
			return j.openKept(ctx, &a, true)
		}
	}
	return nil, cmp.Or(kept.forbidden, kept.unanswered, errors.New("no node keeps it"))
}

// kept asks all of errand's nodes, at once, for what they keep of Jobs of this name.
func (j *Job) kept(ctx context.Context) answer {
	nodes, err := j.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return failed(fmt.Errorf("list nodes: %w", err))
	}
	answers := make([]answer, len(nodes.Items))
	var asked sync.WaitGroup
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if !version.IsNode(node.Status.NodeInfo.KubeletVersion) {
			continue
		}
		asked.Go(func() {
			runs, err := j.keptBy(ctx, node.Name)
			if err != nil {
				answers[i] = failed(fmt.Errorf("ask node %s for the logs that it keeps: %w", node.Name, err))
				return
			}
			answers[i].runs = runs
		})
	}
	asked.Wait()
	var all answer
	for _, a := range answers {
		all.add(a)
	}
	return all
}

// keptBy asks one node.
func (j *Job) keptBy(ctx context.Context, node string) ([]keptRun, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, nodeTime, fmt.Errorf("it took longer than %s", nodeTime))
	defer cancel()
	data, err := j.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").
		Suffix("keptLogs", j.namespace, j.name).Do(ctx).Raw()
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil // an errand that keeps none, or a node that has just gone
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	var list keptlogs.List
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	runs := make([]keptRun, 0, len(list.Runs))
	for _, r := range list.Runs {
		runs = append(runs, keptRun{r, node})
	}
	return runs, nil
}
