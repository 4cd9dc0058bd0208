package cri

import (
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/cri/metadata"
)

// container is a container. Its identity never changes; the rest is under mu.
type container struct {
	id        string
	sandbox   *sandbox
	createdAt time.Time
	boot      string
	imageID   string
	imageRef  string
	logPath   string
	bundle    string
	// ended is closed when it has exited, and that is on record.
	ended chan struct{}

	// work is held by what makes and unmakes it: creation, start, cleanup,
	// removal. Who holds it may wait for ended.
	work sync.Mutex
	// clean says that cleanContainer has done its work; under work.
	clean bool

	mu         sync.Mutex
	phase      containerPhase
	config     *runtimeapi.ContainerConfig // replaced, never changed
	stopSignal syscall.Signal
	user       user
	startedAt  time.Time
	exit       *metadata.Exit
	// unrecorded says that exit isn't on record, for want of space say. Until
	// it is the parent must not forget the container: only it knows.
	unrecorded bool
	pid        int
	cpu        cpuSample
	layer      layerSample
}

// user is whom the first process runs as.
type user struct {
	uid, gid int64
	groups   []int64
}

func (s *Service) newContainer(sb *sandbox, config *runtimeapi.ContainerConfig, img images.Image) *container {
	id := newID()
	c := &container{
		id: id, sandbox: sb, createdAt: s.cfg.Clock.Now(), boot: s.boot,
		imageID: img.ID, imageRef: img.ID, bundle: filepath.Join(s.bundlesDir(), id),
		ended: make(chan struct{}), phase: containerCreating, config: config,
	}
	if len(img.RepoDigests) > 0 {
		c.imageRef = img.RepoDigests[0]
	}
	_, pod := sb.state()
	if dir, name := pod.GetLogDirectory(), config.GetLogPath(); dir != "" && name != "" {
		c.logPath = filepath.Join(dir, name)
	}
	return c
}

func (c *container) what() string { return "container " + c.id }

func (c *container) rootfs() string { return filepath.Join(c.bundle, "rootfs") }

func (c *container) state() containerPhase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}

func (c *container) settings() *runtimeapi.ContainerConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.config
}

// name is unique among the containers that aren't removed.
func (c *container) name() string {
	m := c.settings().GetMetadata()
	return fmt.Sprintf("container %s_%s_%d", m.GetName(), c.sandbox.id, m.GetAttempt())
}

// record is what is to be written down. mu must be held.
func (c *container) record() *metadata.Container {
	phase := metadata.Created
	switch c.phase {
	case containerCreating:
		phase = metadata.Creating
	case containerExited, containerRemoved:
		phase = metadata.Ended
	}
	return &metadata.Container{
		ID: c.id, SandboxID: c.sandbox.id, Phase: phase, CreatedAt: c.createdAt, Boot: c.boot,
		ImageID: c.imageID, ImageRef: c.imageRef, StopSignal: int(c.stopSignal),
		UID: c.user.uid, GID: c.user.gid, Groups: c.user.groups, LogPath: c.logPath,
		Config: metadata.Proto[*runtimeapi.ContainerConfig]{M: c.config}, Exit: c.exit,
	}
}

// fromRecord is the container as its record has it.
func (s *Service) fromRecord(r *metadata.Container, sb *sandbox) *container {
	c := &container{
		id: r.ID, sandbox: sb, createdAt: r.CreatedAt, boot: r.Boot, imageID: r.ImageID, imageRef: r.ImageRef,
		logPath: r.LogPath, bundle: filepath.Join(s.bundlesDir(), r.ID), ended: make(chan struct{}),
		phase: containerCreated, config: r.Config.M, stopSignal: syscall.Signal(r.StopSignal),
		user: user{uid: r.UID, gid: r.GID, groups: r.Groups}, exit: r.Exit,
	}
	switch {
	case r.Phase == metadata.Creating:
		c.phase = containerCreating
	case r.Exit != nil:
		c.phase, c.startedAt = containerExited, r.Exit.StartedAt
		close(c.ended)
	}
	return c
}

func (s *Service) addContainer(c *container) {
	labels := c.settings().GetLabels()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[c.id] = c
	c.sandbox.members[c.id] = c
	s.podContainers.add(labels, c)
}

func (s *Service) dropContainer(c *container) {
	labels := c.settings().GetLabels()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, c.id)
	delete(c.sandbox.members, c.id)
	s.podContainers.drop(labels, c)
}
