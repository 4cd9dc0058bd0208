package node

import (
	"fmt"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/node/fakecri"
)

// BenchmarkPod measures the agent's own part of a pod's life: from its creation
// in the API to Running and to Succeeded, with a runtime and an API that cost
// nothing. "parallel" has 20 pods in flight at once.
func BenchmarkPod(b *testing.B) {
	for _, inFlight := range []int{1, 20} {
		b.Run(fmt.Sprintf("inFlight=%d", inFlight), func(b *testing.B) { benchmarkPod(b, inFlight) })
	}
}

func benchmarkPod(b *testing.B, inFlight int) {
	api := newFakeAPI(clock.RealClock{})
	rt := fakecri.New(clock.RealClock{})
	rt.AddImage("img:1")
	rt.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{Exits: true} }
	conn := rt.Connect()
	client := api.client(conn)
	factory := informers.NewSharedInformerFactory(client, 0)
	dir := b.TempDir()
	n, err := New(Config{
		Client: client, Informers: factory, NodeName: "node-1", Runtime: conn, Images: rt.Images(),
		RootDir: dir + "/pods", LogDir: dir + "/logs", HostIPs: []string{"192.0.2.7"}, Recorder: &eventLog{},
	})
	if err != nil {
		b.Fatal(err)
	}
	_, ctx := ktesting.NewTestContext(b)
	var agent sync.WaitGroup
	agent.Go(func() { _ = n.Run(ctx) })
	factory.Start(ctx.Done())
	<-n.Ready()

	b.ResetTimer()
	slots := make(chan struct{}, inFlight)
	var pods sync.WaitGroup
	var mu sync.Mutex
	var total time.Duration
	for i := range b.N {
		slots <- struct{}{}
		pods.Go(func() {
			defer func() { <-slots }()
			pod := makePod(fmt.Sprintf("p%d", i)).obj()
			start := time.Now()
			api.create(pod)
			for {
				now, changed := api.get(pod)
				if now.Status.Phase == v1.PodSucceeded {
					break
				}
				<-changed
			}
			mu.Lock()
			total += time.Since(start)
			mu.Unlock()
			if err := api.remove(pod, nil); err != nil {
				b.Error(err)
			}
		})
	}
	pods.Wait()
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/pod-latency")
}
