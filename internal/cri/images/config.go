package images

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/utils/clock"
)

// Names of the snapshotters, as containerd calls them.
const (
	// SnapshotterOverlay stacks layers with overlayfs.
	SnapshotterOverlay = "overlayfs"
	// SnapshotterNative copies each layer's files. It works on every file system and is slow.
	SnapshotterNative = "native"
)

const (
	defaultDownloads    = 3 // as containerd and the docker engine
	defaultStallTimeout = time.Minute
	defaultRetryDelay   = 200 * time.Millisecond
	// parkedLife is how long what an interrupted pull has fetched is kept for the next attempt: longer than the five minutes
	// that a kubelet backs off at most.
	parkedLife = 30 * time.Minute
)

// Config says where a Store lives and how it reaches registries. Only Root is required.
type Config struct {
	// Root is the directory of the store. It is made if need be; one process at a time may have it open.
	Root string
	// RegistriesConf is the registries.conf to obey. "" means the system's (/etc/containers/registries.conf and the other
	// places of containers-registries.conf(5)); with a file named, only its own drop-in directory, RegistriesConf + ".d", adds to
	// it. It is read again at every pull.
	RegistriesConf string
	// AuthFile is an auth.json or a docker config.json with the credentials of registries. "" means the user's, in the places
	// of containers-auth.json(5).
	AuthFile string
	// SignaturePolicy is the containers-policy.json(5) to obey. "" means the user's or the system's, in its usual places; where there
	// is none, anything goes.
	SignaturePolicy string
	// CertDirs hold, per registry, a directory <host>[:<port>] of CA (*.crt) and client (*.cert with *.key) certificates.
	// Nil means /etc/containers/certs.d and /etc/docker/certs.d.
	CertDirs []string
	// Snapshotter forces SnapshotterOverlay or SnapshotterNative. "" tries whether an overlay can be mounted in Root, and
	// falls back to copying with a warning.
	Snapshotter string
	// Platform is what images must be made for. Nil means this machine's.
	Platform *ocispec.Platform
	// PinnedImages are names of images reported as pinned: a kubelet's image collection leaves them alone.
	PinnedImages []string
	// MaxConcurrentDownloads bounds the layers of one image that are fetched at once; 0 means 3.
	MaxConcurrentDownloads int
	// StallTimeout is how long a registry may send nothing before the connection counts as dead; 0 means a minute. There is no
	// limit on a pull's total time.
	StallTimeout time.Duration
	// Clock is the time; nil means the real one.
	Clock clock.WithDelayedExecution

	// retryDelay is the first pause before a failed request is tried again.
	retryDelay time.Duration
}

func (c Config) complete() (Config, error) {
	if c.Root == "" {
		return c, errors.New("images: Config.Root must be set")
	}
	root, err := filepath.Abs(c.Root)
	if err != nil {
		return c, err
	}
	c.Root = root
	switch c.Snapshotter {
	case "", SnapshotterOverlay, SnapshotterNative:
	default:
		return c, errors.New("images: unknown snapshotter " + c.Snapshotter + ": it must be " + SnapshotterOverlay + " or " + SnapshotterNative)
	}
	if c.CertDirs == nil {
		c.CertDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	}
	if c.Platform == nil {
		p := platforms.DefaultSpec()
		c.Platform = &p
	}
	if c.MaxConcurrentDownloads <= 0 {
		c.MaxConcurrentDownloads = defaultDownloads
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = defaultStallTimeout
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.retryDelay <= 0 {
		c.retryDelay = defaultRetryDelay
	}
	return c, nil
}
