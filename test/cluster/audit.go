package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// policy has the API server note who writes Jobs and their pods.
var policy = auditv1.Policy{
	TypeMeta:   metav1.TypeMeta{APIVersion: auditv1.SchemeGroupVersion.String(), Kind: "Policy"},
	OmitStages: []auditv1.Stage{auditv1.StageRequestReceived},
	Rules: []auditv1.PolicyRule{
		{
			Level: auditv1.LevelMetadata, Verbs: []string{"create", "update", "patch", "delete", "deletecollection"},
			Resources: []auditv1.GroupResources{{Resources: []string{"pods", "pods/*"}}, {Group: "batch", Resources: []string{"jobs", "jobs/*"}}},
		},
		{Level: auditv1.LevelNone},
	},
}

func writePolicy(path string) error {
	b, err := json.Marshal(policy)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// Writes returns who wrote which Jobs and pods successfully, from the API server's audit log. A write that was on its way when the
// server was killed may be missing.
func (c *Cluster) Writes() ([]auditv1.Event, error) {
	f, err := os.Open(c.file("audit.log"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var writes []auditv1.Event
	for d := json.NewDecoder(f); ; {
		var e auditv1.Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return writes, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if e.ResponseStatus != nil && e.ResponseStatus.Code < 300 && e.ObjectRef != nil {
			writes = append(writes, e)
		}
	}
}
