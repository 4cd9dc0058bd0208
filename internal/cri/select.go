package cri

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// podLabel is the label by which the kubelet's like tell whose pod's a sandbox
// or a container is, and list them: several times for each pod, while every
// pod that has finished is still there.
const podLabel = "io.kubernetes.pod.uid"

// byPod finds what belongs to a pod by its UID, without a look at the others.
// Labels never change.
type byPod[T comparable] map[string]map[T]bool

func (b byPod[T]) add(labels map[string]string, x T) {
	uid, ok := labels[podLabel]
	if !ok {
		return
	}
	if b[uid] == nil {
		b[uid] = map[T]bool{}
	}
	b[uid][x] = true
}

func (b byPod[T]) drop(labels map[string]string, x T) {
	uid := labels[podLabel]
	delete(b[uid], x)
	if len(b[uid]) == 0 {
		delete(b, uid)
	}
}

// one is what a map has under a key.
func one[T any](m map[string]T, key string) iter.Seq[T] {
	return func(yield func(T) bool) {
		if x, ok := m[key]; ok {
			yield(x)
		}
	}
}

// sandboxCandidates are those that the filter may mean. s.mu is held.
func (s *Service) sandboxCandidates(id string, labels map[string]string) iter.Seq[*sandbox] {
	if _, ok := s.sandboxes[id]; ok {
		return one(s.sandboxes, id)
	}
	if uid, ok := labels[podLabel]; ok {
		return maps.Keys(s.podSandboxes[uid])
	}
	return maps.Values(s.sandboxes)
}

// candidates are those that the filter may mean. s.mu is held.
func (s *Service) candidates(id, sandboxID string, labels map[string]string) iter.Seq[*container] {
	if _, ok := s.containers[id]; ok {
		return one(s.containers, id)
	}
	if sb, ok := s.sandboxes[sandboxID]; ok {
		return maps.Values(sb.members)
	}
	if uid, ok := labels[podLabel]; ok {
		return maps.Keys(s.podContainers[uid])
	}
	return maps.Values(s.containers)
}

// selected returns the containers whose IDs begin as given and whose labels
// match, oldest first.
func (s *Service) selected(id, sandboxID string, labels map[string]string) []*container {
	s.mu.RLock()
	var out []*container
	for c := range s.candidates(id, sandboxID, labels) {
		if strings.HasPrefix(c.id, id) && strings.HasPrefix(c.sandbox.id, sandboxID) && matches(labels, c.settings().GetLabels()) {
			out = append(out, c)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b *container) int { return a.createdAt.Compare(b.createdAt) })
	return out
}

// selectedSandboxes returns the sandboxes whose IDs begin as given and whose
// labels match, oldest first.
func (s *Service) selectedSandboxes(id string, labels map[string]string) []*sandbox {
	s.mu.RLock()
	var out []*sandbox
	for sb := range s.sandboxCandidates(id, labels) {
		if _, config := sb.state(); strings.HasPrefix(sb.id, id) && matches(labels, config.GetLabels()) {
			out = append(out, sb)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b *sandbox) int { return a.createdAt.Compare(b.createdAt) })
	return out
}

// allSandboxes returns them oldest first.
func (s *Service) allSandboxes() []*sandbox { return s.selectedSandboxes("", nil) }

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
