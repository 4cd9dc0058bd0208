package podserver

import (
	"encoding/json"
	"net/http"
	"testing"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func TestSummary(t *testing.T) {
	w := newWorld(t)
	code, body := w.get(t, "/stats/summary")
	var got statsapi.Summary
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	if len(got.Pods) != 1 || got.Pods[0].PodRef.UID != "uid-1" || *got.Pods[0].CPU.UsageNanoCores != 7 || got.Pods[0].Memory != nil {
		t.Fatalf("%s", body)
	}
	c := got.Pods[0].Containers
	if len(c) != 1 || c[0].Name != "c" || *c[0].Memory.WorkingSetBytes != 9 || c[0].CPU != nil {
		t.Errorf("%s", body)
	}
}
