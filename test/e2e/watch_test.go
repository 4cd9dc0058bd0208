//go:build e2e

package e2e

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	batchclient "k8s.io/client-go/kubernetes/typed/batch/v1"
)

// jobListWatch lists and watches the Jobs that a field selector names.
type jobListWatch struct {
	jobs     batchclient.JobInterface
	selector string
}

func (l jobListWatch) List(o metav1.ListOptions) (runtime.Object, error) {
	o.FieldSelector = l.selector
	return l.jobs.List(context.Background(), o)
}

func (l jobListWatch) Watch(o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector = l.selector
	return l.jobs.Watch(context.Background(), o)
}
