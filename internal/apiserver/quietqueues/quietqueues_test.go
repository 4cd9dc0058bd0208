package quietqueues_test

import (
	"fmt"
	"runtime"
	"testing"

	"k8s.io/client-go/util/workqueue"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // what turns metrics on

	_ "errand.dev/errand/internal/apiserver/quietqueues"
)

func TestNamedQueuesStartNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 10 {
		queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: fmt.Sprint("queue-", i)})
		defer queue.ShutDown()
	}
	if after := runtime.NumGoroutine(); after != before {
		t.Errorf("ten queues started %d goroutines", after-before)
	}
}
