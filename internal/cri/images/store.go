package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"k8s.io/klog/v2"
)

// namespace is the one containerd namespace that the store uses.
const namespace = "errand"

// openTimeout is how long New waits for another process to let go of the database.
const openTimeout = 500 * time.Millisecond

// Store holds images. All its methods may be called concurrently. See the package's comment for what it promises.
type Store struct {
	cfg      Config
	platform platforms.MatchComparer

	bolt    *bolt.DB
	db      *metadata.DB
	content content.Store
	names   images.Store
	leases  leases.Manager
	backend backend

	index   *index
	reserve *reserve
	rootfs  *rootfsKeeper
	flights *flightGroup
	clients *httpClients
	// keys keeps two pulls from fetching one blob or unpacking one layer twice.
	keys *keyLock
	// parked holds the leases of interrupted pulls, see lease.go.
	parked parkingLot

	// nameMu orders changes of names: what a name may point to is decided and written under it.
	nameMu sync.Mutex
	// gcMu lets one collection run at a time.
	gcMu sync.Mutex

	// ctx ends with Close, and all pulls with it.
	ctx    context.Context
	cancel context.CancelFunc
}

// New opens the store in cfg.Root, making it if need be, and takes up what earlier pulls left unfinished. ctx carries the
// logger and bounds only the opening.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the image store: %w", err)
	}
	s := &Store{
		cfg:      cfg,
		platform: platforms.Only(*cfg.Platform),
		clients:  newHTTPClients(cfg),
		reserve:  newReserve(cfg.Root),
		flights:  newFlightGroup(cfg.Clock),
		keys:     newKeyLock(),
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	quietLibraries()
	if err := s.checkConfig(); err != nil {
		return nil, err
	}
	if err := s.open(s.context(ctx)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	blobs, err := local.NewStore(filepath.Join(s.cfg.Root, "content"))
	if err != nil {
		return fmt.Errorf("open the content store: %w", err)
	}
	if s.backend, err = openBackend(ctx, s.cfg); err != nil {
		return err
	}
	file := filepath.Join(s.cfg.Root, "metadata.db")
	s.bolt, err = bolt.Open(file, 0o600, &bolt.Options{Timeout: openTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("the image store %s is in use by another process", s.cfg.Root)
	}
	if err != nil {
		return fmt.Errorf("open the image database %s: %w", file, err)
	}
	s.db = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{s.backend.name: s.backend.snapshotter})
	if err := s.db.Init(ctx); err != nil {
		return fmt.Errorf("prepare the image database %s: %w", file, err)
	}
	s.content = s.db.ContentStore()
	s.names = metadata.NewImageStore(s.db)
	s.leases = metadata.NewLeaseManager(s.db)
	if s.rootfs, err = newRootfsKeeper(s.cfg.Root, s.backend, s.db.Snapshotter(s.backend.name)); err != nil {
		return err
	}
	s.db.RegisterCollectibleResource(resourceRootfs, s.rootfs)
	if err := s.takeUpUnfinished(ctx); err != nil {
		return err
	}
	if s.index, err = s.loadIndex(ctx); err != nil {
		return err
	}
	s.reserve.keep()
	return nil
}

// Close ends what is in progress and closes the store's files. Containers' roots stay as they are.
func (s *Store) Close() error {
	s.cancel()
	s.flights.wait()
	s.parked.close()
	s.clients.close()
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	} else if s.bolt != nil {
		errs = append(errs, s.bolt.Close())
	}
	if s.backend.snapshotter != nil {
		errs = append(errs, s.backend.snapshotter.Close())
	}
	return errors.Join(errs...)
}

// context readies ctx for containerd's libraries: their namespace, and their log led into ours.
func (s *Store) context(ctx context.Context) context.Context {
	ctx = namespaces.WithNamespace(ctx, namespace)
	return log.WithLogger(ctx, logEntry(klog.FromContext(ctx)))
}
