package resourcemetrics

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/utils/clock"
)

const (
	// minWindow and maxWindow bound the time between the readings that a rate
	// is made of; see the package's comment.
	minWindow = time.Second
	maxWindow = time.Minute
	// nodeTimeout bounds how long a node may take to answer. One that doesn't is
	// left out.
	nodeTimeout = 5 * time.Second
)

// reading is what all nodes told at one time.
type reading struct {
	at    time.Time
	nodes map[string]*nodeReading
}

// pair is two readings that rates can be made of.
type pair struct{ before, now *reading }

// node is the usage of a node, false if there is none yet.
func (p pair) node(name string) (usage, bool) {
	now := p.now.nodes[name]
	if now == nil {
		return usage{}, false
	}
	var before *counters
	if n := p.before.nodes[name]; n != nil {
		before = &n.node
	}
	return rate(before, &now.node)
}

// pod is the usage of a pod's containers by name, false if any has none yet.
func (p pair) pod(node string, key podKey) (map[string]usage, bool) {
	now := p.now.nodes[node]
	if now == nil || len(now.pods[key]) == 0 {
		return nil, false
	}
	out := make(map[string]usage, len(now.pods[key]))
	for name, c := range now.pods[key] {
		var before *counters
		if n := p.before.nodes[node]; n != nil {
			before = n.pods[key][name]
		}
		u, ok := rate(before, c)
		if !ok {
			return nil, false
		}
		out[name] = u
	}
	return out, true
}

// sampler makes readings when they are asked for.
type sampler struct {
	nodes       corelisters.NodeLister
	connections kubeletclient.ConnectionInfoGetter
	clock       clock.Clock
	flight      singleflight.Group

	mu   sync.Mutex
	last pair
}

// usage returns two readings, the later one at most minWindow old. It makes them
// if need be, for all who ask meanwhile at once; ctx only bounds the waiting.
func (s *sampler) usage(ctx context.Context) (pair, error) {
	work := s.flight.DoChan("", func() (any, error) { return s.sample(context.WithoutCancel(ctx)), nil })
	select {
	case r := <-work:
		return r.Val.(pair), nil
	case <-ctx.Done():
		return pair{}, context.Cause(ctx)
	}
}

// sample is called once at a time.
func (s *sampler) sample(ctx context.Context) pair {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	now := s.clock.Now()
	switch {
	case last.now != nil && now.Sub(last.now.at) < minWindow:
		return last
	case last.now != nil && now.Sub(last.now.at) <= maxWindow:
		last = pair{before: last.now}
	default:
		last = pair{before: s.read(ctx)}
		s.clock.Sleep(minWindow)
	}
	last.now = s.read(ctx)
	s.mu.Lock()
	s.last = last
	s.mu.Unlock()
	return last
}

// read asks all nodes at once.
func (s *sampler) read(ctx context.Context) *reading {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	out := &reading{at: s.clock.Now(), nodes: map[string]*nodeReading{}}
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		return out // a cache has no errors
	}
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for _, node := range nodes {
		wg.Go(func() {
			r, err := s.readNode(ctx, node)
			if err != nil {
				klog.FromContext(ctx).Error(err, "A node doesn't tell its usage", "node", klog.KObj(node))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.nodes[node.Name] = r
		})
	}
	wg.Wait()
	return out
}

func (s *sampler) readNode(ctx context.Context, node *corev1.Node) (*nodeReading, error) {
	info, err := s.connections.GetConnectionInfo(ctx, types.NodeName(node.Name))
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("%s://%s:%s/metrics/resource", info.Scheme, info.Hostname, info.Port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: info.Transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return parse(resp.Body, s.clock.Now())
}
