package cri

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	internalapi "k8s.io/cri-api/pkg/apis"

	"errand.dev/errand/internal/cri/metadata"
	"errand.dev/errand/internal/cri/spec"
)

var _ internalapi.RuntimeService = (*Service)(nil)

// Service is the runtime. It is safe for concurrent use.
//
// Locks are taken in the order: a sandbox's life, a container's work,
// Service.mu, a sandbox's or container's mu.
type Service struct {
	cfg    Config
	host   *spec.Host
	boot   string
	events *hub
	stream *streamer
	// starts bounds how many containers start at once.
	starts chan struct{}
	// background counts the cleanups that nobody waits for.
	background tasks
	// noUsers says why sandboxes can't have user namespaces.
	noUsers func() error
	failure runFailure

	cgroupUsers users

	sandboxRecords   *metadata.Dir[metadata.Sandbox]
	containerRecords *metadata.Dir[metadata.Container]

	mu         sync.RWMutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	// The same by their pods' label.
	podSandboxes  byPod[*sandbox]
	podContainers byPod[*container]
	// names are those in use, of sandboxes and containers: a name given twice
	// is a caller that asks a second time.
	names map[string]string
}

// New opens the records and brings them together with what is there: the
// parent's containers, pinned namespaces, mounts, roots of containers. It
// starts nothing; containers' ends are noticed while Run runs.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:        cfg,
		starts:     make(chan struct{}, cfg.StartConcurrency),
		sandboxes:  map[string]*sandbox{},
		containers: map[string]*container{},
		names:      map[string]string{},

		podSandboxes:  byPod[*sandbox]{},
		podContainers: byPod[*container]{},
	}
	s.cgroupUsers.count = map[string]int{}
	s.noUsers = sync.OnceValue(func() error {
		if len(s.cfg.Handlers) == 0 {
			return errNoHandlers
		}
		return s.cfg.Namespaces.ProbeUsers(s.cfg.Root, s.cfg.RuntimeDir)
	})
	s.events = newHub(s.describe)
	s.stream = newStreamer(s)
	if err := s.open(); err != nil {
		return nil, err
	}
	// While others start: the first status waits for it.
	s.background.begin(func() { _ = s.noUsers() })
	if err := s.reconcile(ctx); err != nil {
		return nil, fmt.Errorf("take over what the last errand left: %w", err)
	}
	return s, nil
}

func (s *Service) open() error {
	var err error
	if s.boot, err = bootID(); err != nil {
		return err
	}
	if s.host, err = spec.ReadHost(s.cfg.Cgroups.Root(), s.cfg.Cgroups.V2()); err != nil {
		return err
	}
	if s.sandboxRecords, err = metadata.OpenDir[metadata.Sandbox](filepath.Join(s.cfg.Root, "sandboxes")); err != nil {
		return err
	}
	if s.containerRecords, err = metadata.OpenDir[metadata.Container](filepath.Join(s.cfg.Root, "containers")); err != nil {
		return err
	}
	for _, dir := range []string{s.sandboxesDir(), s.bundlesDir()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make the runtime directory: %w", err)
		}
	}
	return nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the kernel's boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (s *Service) sandboxesDir() string { return filepath.Join(s.cfg.RuntimeDir, "sandboxes") }
func (s *Service) bundlesDir() string   { return filepath.Join(s.cfg.RuntimeDir, "bundles") }

// Close ends the streams. Sandboxes and containers stay as they are.
func (s *Service) Close(context.Context) error {
	err := s.stream.close()
	s.background.wait()
	return err
}

// newID is 64 hexadecimal digits, as containerd and Docker have them.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	return hex.EncodeToString(b[:])
}

// reserve takes a name for id, or says who has it.
func (s *Service) reserve(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.names[name]; ok {
		return fmt.Errorf("name %q is reserved for %q: %w", name, other, errdefs.ErrAlreadyExists)
	}
	s.names[name] = id
	return nil
}

func (s *Service) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// sandbox finds a sandbox by its ID, or by digits that begin only that one.
func (s *Service) sandbox(id string) (*sandbox, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return find(s.sandboxes, id, "sandbox")
}

func (s *Service) container(id string) (*container, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return find(s.containers, id, "container")
}

func find[T any](all map[string]T, id, what string) (T, error) {
	var found T
	if x, ok := all[id]; ok {
		return x, nil
	}
	matches := 0
	for full, x := range all {
		if id != "" && strings.HasPrefix(full, id) {
			found = x
			matches++
		}
	}
	switch {
	case matches == 0:
		return found, fmt.Errorf("an error occurred when try to find %s %q: %w", what, id, errdefs.ErrNotFound)
	case matches > 1:
		return found, fmt.Errorf("%s ID %q is not unique: %w", what, id, errdefs.ErrInvalidArgument)
	}
	return found, nil
}

// containersOf returns the sandbox's containers, in no order.
func (s *Service) containersOf(sandboxID string) []*container {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sb, ok := s.sandboxes[sandboxID]
	if !ok {
		return nil
	}
	out := make([]*container, 0, len(sb.members))
	for _, c := range sb.members {
		out = append(out, c)
	}
	return out
}

// tasks counts what runs in the background. Unlike a sync.WaitGroup it may be
// waited for while more is begun.
type tasks struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n gets to 0; nil while nobody waits
}

func (t *tasks) begin(f func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer t.end()
		f()
	}()
}

func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// wait waits until nothing runs.
func (t *tasks) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	<-idle
}
