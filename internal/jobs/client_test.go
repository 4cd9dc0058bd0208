package jobs

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

func labelSet(l map[string]string) labels.Set { return l }

// fakeClient is the part of kubernetes.Interface that the engine uses, on a fakeAPI. Anything else panics.
type fakeClient struct {
	kubernetes.Interface
	api *fakeAPI
}

func (c fakeClient) BatchV1() typedbatchv1.BatchV1Interface { return fakeBatch{api: c.api} }
func (c fakeClient) CoreV1() typedcorev1.CoreV1Interface    { return fakeCore{api: c.api} }

type fakeBatch struct {
	typedbatchv1.BatchV1Interface
	api *fakeAPI
}

func (c fakeBatch) Jobs(namespace string) typedbatchv1.JobInterface {
	return fakeJobs{api: c.api, namespace: namespace}
}

type fakeCore struct {
	typedcorev1.CoreV1Interface
	api *fakeAPI
}

func (c fakeCore) Pods(namespace string) typedcorev1.PodInterface {
	return fakePods{api: c.api, namespace: namespace}
}

type fakeJobs struct {
	typedbatchv1.JobInterface
	api       *fakeAPI
	namespace string
}

func (c fakeJobs) Get(_ context.Context, name string, _ metav1.GetOptions) (job *batchv1.Job, err error) {
	err = c.api.call("get", "jobs", name, func() error {
		stored := c.api.jobs[key(c.namespace, name)]
		if stored == nil {
			return apierrors.NewNotFound(jobResource, name)
		}
		job = stored.DeepCopy()
		return nil
	})
	return job, err
}

func (c fakeJobs) UpdateStatus(_ context.Context, in *batchv1.Job, _ metav1.UpdateOptions) (job *batchv1.Job, err error) {
	err = c.api.call("updateStatus", "jobs", in.Name, func() (err error) {
		job, err = c.api.updateStatus(in)
		return err
	})
	return job, err
}

func (c fakeJobs) Delete(_ context.Context, name string, opts metav1.DeleteOptions) error {
	return c.api.call("delete", "jobs", name, func() error { return c.api.deleteJob(c.namespace, name, opts) })
}

type fakePods struct {
	typedcorev1.PodInterface
	api       *fakeAPI
	namespace string
}

func (c fakePods) Create(_ context.Context, in *corev1.Pod, _ metav1.CreateOptions) (pod *corev1.Pod, err error) {
	err = c.api.call("create", "pods", in.Name, func() (err error) {
		pod, err = c.api.createPod(in)
		return err
	})
	return pod, err
}

func (c fakePods) Get(_ context.Context, name string, _ metav1.GetOptions) (pod *corev1.Pod, err error) {
	err = c.api.call("get", "pods", name, func() error {
		stored := c.api.pods[key(c.namespace, name)]
		if stored == nil {
			return apierrors.NewNotFound(podResource, name)
		}
		pod = stored.DeepCopy()
		return nil
	})
	return pod, err
}

func (c fakePods) List(_ context.Context, opts metav1.ListOptions) (list *corev1.PodList, err error) {
	err = c.api.call("list", "pods", "", func() (err error) {
		list, err = c.api.listPods(c.namespace, opts.LabelSelector)
		return err
	})
	return list, err
}

func (c fakePods) Patch(_ context.Context, name string, kind types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (pod *corev1.Pod, err error) {
	err = c.api.call("patch", "pods", name, func() (err error) {
		pod, err = c.api.patchPod(c.namespace, name, kind, data)
		return err
	})
	return pod, err
}

func (c fakePods) Delete(_ context.Context, name string, opts metav1.DeleteOptions) error {
	return c.api.call("delete", "pods", name, func() error { return c.api.deletePod(c.namespace, name, opts) })
}
