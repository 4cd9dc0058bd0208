package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	restclient "k8s.io/client-go/rest"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
)

// TestUsageIsServed covers metrics.k8s.io as kubectl top and autoscalers read it,
// in both versions, as JSON and protobuf, and in kubectl get's form.
func TestUsageIsServed(t *testing.T) {
	const nodeName = "measured"
	listener := newPipeListener()
	go func() { _ = http.Serve(listener, nil) }() // ends with the process
	s, _ := startServer(t, Config{DataDir: t.TempDir(), NodeName: nodeName, NodeDialer: listener.dial})
	start := time.Now()
	http.HandleFunc("GET /metrics/resource", func(w http.ResponseWriter, _ *http.Request) {
		labels := `{container="main",namespace="default",pod="p"}`
		fmt.Fprintf(w, "container_cpu_usage_seconds_total%s %f\ncontainer_memory_working_set_bytes%s 1048576\n", labels, time.Since(start).Seconds()/2, labels)
		fmt.Fprintf(w, "node_cpu_usage_seconds_total %f\nnode_memory_working_set_bytes 2097152\n", time.Since(start).Seconds())
	})
	client := adminClient(t, s)
	ctx := t.Context()
	if _, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := makePod("p")
	pod.Labels, pod.Spec.NodeName = map[string]string{"app": "x"}, nodeName
	if _, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	running := []byte(`{"status":{"phase":"Running"}}`)
	if _, err := client.CoreV1().Pods("default").Patch(ctx, "p", "application/merge-patch+json", running, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}

	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		config := restclient.CopyConfig(s.DirectConfig())
		config.ContentType, config.AcceptContentTypes = contentType, contentType
		usage, err := metricsclient.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := usage.MetricsV1beta1().PodMetricses("default").Get(ctx, "p", metav1.GetOptions{})
			return err
		})
		old, err := usage.MetricsV1beta1().PodMetricses("").List(ctx, metav1.ListOptions{LabelSelector: "app=x", FieldSelector: "metadata.name=p"})
		if err != nil || len(old.Items) != 1 || old.Items[0].Containers[0].Usage.Memory().Value() != 1<<20 || old.Items[0].Window.Duration < minCPUWindow {
			t.Errorf("%s: %+v, %v", contentType, old, err)
		}
		if cpu := old.Items[0].Containers[0].Usage.Cpu().MilliValue(); cpu < 400 || cpu > 600 {
			t.Errorf("%s: %dm of CPU for half a core's use", contentType, cpu)
		}
		pods, err := usage.MetricsV1().PodMetricses("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(pods.Items) != 1 {
			t.Errorf("%s: %+v, %v", contentType, pods, err)
		}
		nodes, err := usage.MetricsV1().NodeMetricses().List(ctx, metav1.ListOptions{})
		if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Usage.Memory().Value() != 2<<20 {
			t.Errorf("%s: %+v, %v", contentType, nodes, err)
		}
		if _, err := usage.MetricsV1beta1().NodeMetricses().Get(ctx, "other", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", contentType, err)
		}
	}
	raw, err := client.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "p" || table.Rows[0].Cells[2] != "1Mi" {
		t.Errorf("%s, %v", raw, err)
	}
	described, err := client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	text, err := described["apis/metrics.k8s.io/v1beta1"].Schema(runtime.ContentTypeJSON)
	if err != nil || !strings.Contains(string(text), `"kind":"PodMetrics"`) {
		t.Errorf("the description doesn't name PodMetrics: %v", err)
	}
}

// minCPUWindow is the shortest window that a rate can have.
const minCPUWindow = time.Second

// TestViewersSeeUsage: who may view a namespace may see what is used there, once
// roles have been aggregated.
func TestViewersSeeUsage(t *testing.T) {
	role, err := shared.client.RbacV1().ClusterRoles().Get(t.Context(), "system:aggregated-metrics-reader", metav1.GetOptions{})
	if err != nil || role.Labels["rbac.authorization.k8s.io/aggregate-to-view"] != "true" || role.Rules[0].APIGroups[0] != "metrics.k8s.io" {
		t.Errorf("%+v, %v", role, err)
	}
}
