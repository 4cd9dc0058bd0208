package apiserver

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

func makeConfigMaps(t *testing.T, ns string, n int) {
	t.Helper()
	for i := range n {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("cm-%d", i)}}
		if _, err := shared.client.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPagination(t *testing.T) {
	ns := namespace(t, nil)
	makeConfigMaps(t, ns, 5)
	var names []string
	options := metav1.ListOptions{Limit: 2}
	pages := 0
	for {
		page, err := shared.client.CoreV1().ConfigMaps(ns).List(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, cm := range page.Items {
			names = append(names, cm.Name)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	if pages != 3 || len(names) != 5 {
		t.Errorf("%d pages of %v, want 3 pages of 5", pages, names)
	}
}

func TestWatchSendsChangesAndBookmarks(t *testing.T) {
	ns := namespace(t, nil)
	// A bookmark comes two seconds before the watch is to end.
	w, err := shared.client.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{
		AllowWatchBookmarks: true, TimeoutSeconds: ptr.To(int64(4)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	makeConfigMaps(t, ns, 1)
	var seen []watch.EventType
	for event := range w.ResultChan() {
		if event.Type == watch.Bookmark && event.Object.(*corev1.ConfigMap).ResourceVersion == "" {
			t.Error("a bookmark without resource version")
		}
		if status, ok := event.Object.(*metav1.Status); ok {
			t.Errorf("the watch broke: %s", status.Message)
		}
		seen = append(seen, event.Type)
	}
	if !slices.Contains(seen, watch.Added) || !slices.Contains(seen, watch.Bookmark) {
		t.Errorf("saw %v, want ADDED and a BOOKMARK", seen)
	}
}

func TestWatchListStreamsWhatExists(t *testing.T) {
	ns := namespace(t, nil)
	makeConfigMaps(t, ns, 3)
	w, err := shared.client.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{
		AllowWatchBookmarks: true, SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	added := 0
	for event := range w.ResultChan() {
		if status, ok := event.Object.(*metav1.Status); ok {
			t.Fatalf("the watch broke: %s", status.Message)
		}
		if event.Type == watch.Added {
			added++
			continue
		}
		annotations := event.Object.(*corev1.ConfigMap).Annotations
		if event.Type != watch.Bookmark || annotations[metav1.InitialEventsAnnotationKey] != "true" {
			t.Fatalf("got %s %v after the initial events", event.Type, annotations)
		}
		break
	}
	if added != 3 {
		t.Errorf("%d objects before the bookmark, want 3", added)
	}
}

// TestTables covers what kubectl get prints.
func TestTables(t *testing.T) {
	ns := namespace(t, nil)
	if _, err := shared.client.BatchV1().Jobs(ns).Create(t.Context(), makeJob("j"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	body, err := shared.client.BatchV1().RESTClient().Get().Namespace(ns).Resource("jobs").
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(body, &table); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, column := range table.ColumnDefinitions {
		if column.Priority == 0 {
			columns = append(columns, column.Name)
		}
	}
	want := []string{"Name", "Status", "Completions", "Duration", "Age"}
	if fmt.Sprint(columns) != fmt.Sprint(want) || len(table.Rows) != 1 || table.Rows[0].Cells[2] != "0/1" {
		t.Errorf("columns %v, rows %v", columns, table.Rows)
	}
}
