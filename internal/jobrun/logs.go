package jobrun

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// goneGrace is how long a log may still arrive whose pod is gone.
const goneGrace = 5 * time.Second

// logs follows the logs of pods' containers. Its methods are called by one goroutine.
type logs struct {
	client kubernetes.Interface
	output *Output
	kept   KeptLog
	// many says that lines begin with the name of their pod.
	many    atomic.Bool
	streams map[runOf]*stream
	pods    map[types.UID]*podStreams
	// open counts what isn't read or said to its end.
	open    int
	watches *watches
	running sync.WaitGroup
}

// runOf is one run of a container: each restart is another.
type runOf struct {
	pod       types.UID
	container string
	run       int32
}

// podStreams are the streams of one pod, in the order they began.
type podStreams struct {
	uid     types.UID
	streams []*stream
	told    bool // that it failed
	ctx     context.Context
	cancel  context.CancelFunc
	all     context.Context // of all pods' streams, which ctx is one of
}

// KeptLog opens the log of one run of a container that the API has no more, with a time before each
// line, as the API gives it. An error says that it isn't kept, or can't be read.
type KeptLog func(ctx context.Context, pod types.UID, container string, restartCount int32) (io.ReadCloser, error)

func newLogs(watches *watches, output *Output, kept KeptLog) *logs {
	return &logs{client: watches.client, watches: watches, output: output, kept: kept, streams: map[runOf]*stream{}, pods: map[types.UID]*podStreams{}}
}

// see takes a pod's status: logs that can be had from now on are followed under ctx.
func (l *logs) see(ctx context.Context, pod *corev1.Pod) {
	p := l.pods[pod.UID]
	if p == nil {
		p = &podStreams{uid: pod.UID, all: ctx}
		p.ctx, p.cancel = context.WithCancel(ctx)
		l.pods[pod.UID] = p
		if len(l.pods) > 1 {
			l.many.Store(true)
		}
	}
	inits := map[string]bool{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		inits[c.Name] = c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	}
	for _, s := range containerStatuses(pod) {
		l.seeContainer(p, pod, &s, inits[s.Name])
	}
	if ended(pod) {
		p.finish()
	}
	if why := podFailure(pod); why != "" && !p.told {
		p.told = true
		streams := slices.Clone(p.streams)
		l.start(p, func() {
			for _, s := range streams {
				<-s.done
			}
			l.output.Say("%s", why)
		})
	}
}

// seeContainer takes one container's status. Until a restart, the run that ended is
// both the current one and the last.
func (l *logs) seeContainer(p *podStreams, pod *corev1.Pod, s *corev1.ContainerStatus, gate bool) {
	last := s.RestartCount - 1
	if s.State.Waiting != nil {
		last = s.RestartCount
	}
	for run := range last {
		l.leave(runOf{pod.UID, s.Name, run}, passed)
	}
	// What a node has lost has no times. It isn't read, but it is over.
	if !l.leave(runOf{pod.UID, s.Name, last}, previous) {
		if t := s.LastTerminationState.Terminated; t != nil && last >= 0 && !t.StartedAt.IsZero() {
			before := &stream{runOf: runOf{pod.UID, s.Name, last}, gate: gate}
			before.place.Store(previous)
			l.seeRun(p, pod, before, true)
		}
	}
	now := &stream{runOf: runOf{pod.UID, s.Name, s.RestartCount}, gate: gate}
	switch {
	case s.State.Running != nil:
		l.seeRun(p, pod, now, false)
	case s.State.Terminated != nil:
		now.single.Store(!restarts(pod, s))
		if known := l.streams[now.runOf]; known != nil {
			known.single.Store(now.single.Load())
		}
		if !l.leave(now.runOf, current) && !s.State.Terminated.StartedAt.IsZero() {
			l.seeRun(p, pod, now, true)
		}
	}
}

// restarts says whether a container that has ended may be started again, as far as that
// can be told by the pod.
func restarts(pod *corev1.Pod, s *corev1.ContainerStatus) bool {
	policy, ruled := pod.Spec.RestartPolicy, false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			ruled = ruled || len(list[i].RestartPolicyRules) > 0
			if own := list[i].RestartPolicy; own != nil && list[i].Name == s.Name {
				policy = corev1.RestartPolicy(*own)
			}
		}
	}
	switch {
	case policy == corev1.RestartPolicyAlways:
		return true
	case s.State.Terminated.ExitCode == 0:
		return false
	default:
		return ruled || policy != corev1.RestartPolicyNever
	}
}

// finish takes that none of the pod's containers is started again.
func (p *podStreams) finish() {
	for _, s := range p.streams {
		s.finished.Store(true)
		s.move()
	}
}

// finish takes that none of any pod's is: the Job has ended.
func (l *logs) finish() {
	for _, p := range l.pods {
		p.finish()
	}
}

// leave takes of a run whose log is followed that it is over, and where the API has it;
// false if it isn't followed.
func (l *logs) leave(run runOf, place int32) bool {
	known := l.streams[run]
	if known != nil {
		known.place.Store(place)
		known.end()
		known.move()
	}
	return known != nil
}

// seeRun takes that a container runs, or ran and is over. The log of a run that is
// seen for the first time is followed as s.
func (l *logs) seeRun(p *podStreams, pod *corev1.Pod, s *stream, over bool) {
	known := l.streams[s.runOf]
	switch {
	case known != nil && over:
		known.end()
		return
	case known != nil:
		known.move()
		return
	}
	s.logs, s.pod, s.namespace, s.name = l, p, pod.Namespace, pod.Name
	s.over, s.moved, s.done = make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	s.restarts = pod.Spec.RestartPolicy != corev1.RestartPolicyNever
	s.several = len(pod.Spec.Containers)+len(pod.Spec.InitContainers) > 1
	for _, other := range p.streams {
		if other.gate || other.container == s.container {
			s.after = append(s.after, other)
		}
	}
	if over {
		s.end() // so that its log is read once
	}
	l.streams[s.runOf] = s
	p.streams = append(p.streams, s)
	l.start(p, s.follow)
}

// start runs what is open until it ends.
func (l *logs) start(p *podStreams, run func()) {
	l.open++
	l.running.Go(func() {
		run()
		l.watches.do(p.all, func() { l.open-- }) // also of a pod that was given up
	})
}

// back takes that the API answers again: what broke off can go on.
func (l *logs) back() {
	for _, s := range l.streams {
		s.move()
	}
}

// gone takes that a pod isn't there any more, and so no log of it.
func (l *logs) gone(pod *corev1.Pod) {
	if p := l.pods[pod.UID]; p != nil {
		for _, s := range p.streams {
			s.end()
		}
		p.finish()
		// What was under way may still arrive; a node that is lost never says so.
		time.AfterFunc(goneGrace, p.cancel)
	}
}
