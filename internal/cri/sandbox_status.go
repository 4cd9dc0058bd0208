package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSandboxStatus returns the sandbox's status and its containers'. The
// address is there as long as the sandbox is ready. Code: NotFound.
func (s *Service) PodSandboxStatus(_ context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	sb, err := s.sandbox(id)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &runtimeapi.PodSandboxStatusResponse{
		Status:             sb.status(),
		ContainersStatuses: s.statusesOf(sb.id),
		Timestamp:          s.cfg.Clock.Now().UnixNano(),
	}
	if verbose {
		if resp.Info, err = s.sandboxInfo(sb); err != nil {
			return nil, toStatus(fmt.Errorf("describe %s: %w", sb.what(), err))
		}
	}
	return resp, nil
}

// sandboxInfo is what crictl inspectp shows besides the status.
func (s *Service) sandboxInfo(sb *sandbox) (map[string]string, error) {
	_, settings := sb.state()
	config, err := protojson.Marshal(settings)
	if err != nil {
		return nil, err
	}
	info, err := json.Marshal(struct {
		Boot   string            `json:"boot"`
		Files  string            `json:"files"`
		Cgroup string            `json:"cgroup"`
		Pins   map[string]string `json:"namespaces"`
		Config json.RawMessage   `json:"config"`
	}{sb.boot, sb.dir, s.cgroup(sb), s.pins(sb), config})
	if err != nil {
		return nil, err
	}
	return map[string]string{"info": string(info)}, nil
}

func (s *Service) pins(sb *sandbox) map[string]string {
	out := map[string]string{}
	for _, k := range sb.kinds() {
		out[string(k)] = s.cfg.Namespaces.Path(sb.id, k)
	}
	return out
}

func (p sandboxPhase) cri() runtimeapi.PodSandboxState {
	if p == sandboxReady {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (sb *sandbox) status() *runtimeapi.PodSandboxStatus {
	phase, config := sb.state()
	st := &runtimeapi.PodSandboxStatus{
		Id:             sb.id,
		Metadata:       config.GetMetadata(),
		State:          phase.cri(),
		CreatedAt:      sb.createdAt.UnixNano(),
		Labels:         config.GetLabels(),
		Annotations:    config.GetAnnotations(),
		RuntimeHandler: sb.handler,
		Network:        &runtimeapi.PodSandboxNetworkStatus{},
		Linux:          &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: sb.options()}},
	}
	if phase == sandboxReady && sb.address.IsValid() {
		st.Network.Ip = sb.address.String()
	}
	return st
}

func (s *Service) statusesOf(sandboxID string) []*runtimeapi.ContainerStatus {
	members := s.containersOf(sandboxID)
	slices.SortFunc(members, func(a, b *container) int { return a.createdAt.Compare(b.createdAt) })
	out := make([]*runtimeapi.ContainerStatus, len(members))
	for i, c := range members {
		out[i] = c.status()
	}
	return out
}

// ListPodSandbox lists the sandboxes that match the filter, oldest first.
func (s *Service) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	var out []*runtimeapi.PodSandbox
	for _, sb := range s.selectedSandboxes(f.GetId(), f.GetLabelSelector()) {
		if phase, _ := sb.state(); f.GetState() != nil && f.GetState().GetState() != phase.cri() {
			continue
		}
		st := sb.status()
		out = append(out, &runtimeapi.PodSandbox{
			Id: st.Id, Metadata: st.Metadata, State: st.State, CreatedAt: st.CreatedAt,
			Labels: st.Labels, Annotations: st.Annotations, RuntimeHandler: st.RuntimeHandler,
		})
	}
	return out, nil
}
