package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"k8s.io/klog/v2"
)

const (
	// DefaultQuotaBytes is how large the database may grow before writes are
	// refused. It is the most that etcd recommends.
	DefaultQuotaBytes = 8 << 30

	// socketName is the file in the socket directory that etcdctl connects to.
	socketName = "etcd.sock"

	// The member doesn't wait for the election that ticks would bring (see
	// elect): short ones would only wake an idle machine.
	tickMillis     = 1000
	electionMillis = 5 * tickMillis

	// commitInterval is how long changes gather before they are written to the
	// database. They are safe before that, in the log, which is synced at each.
	commitInterval = 500 * time.Millisecond

	// snapshotCount is how many log entries stand between two snapshots: at
	// most so many are held in memory, and replayed by a start. etcd holds
	// 10,000, and 5,000 more for followers that lag; there are none.
	snapshotCount   = 1000
	snapshotCatchUp = 100

	// defragThresholdMegabytes of free pages make the member defragment its
	// database when it starts, before it serves.
	defragThresholdMegabytes = 64

	// maxSocketPath is the longest path the kernel takes for a unix socket.
	maxSocketPath = 107
)

// Config says where a member keeps its data.
type Config struct {
	// Dir holds the database and the write-ahead log. It is made if missing.
	Dir string
	// SocketDir holds the unix socket; it must exist. The path of the socket
	// must not exceed 107 bytes.
	SocketDir string
	// QuotaBytes limits the database's size; 0 means DefaultQuotaBytes.
	QuotaBytes int64
}

// Member is a running etcd. Its methods may be called concurrently.
type Member struct {
	cfg    Config
	etcd   *embed.Etcd
	client *clientv3.Client
	fatal  *fatalSignal
	quiet  atomic.Bool // set while starting, when errors are returned, and while closing
	space  *spaceCheck
}

// Start runs a member on cfg.Dir and returns once it serves reads and writes.
// It logs through the klog logger in ctx; ctx doesn't bound the member's life:
// Close does. An error says what is wrong with the directory and what to do.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	if cfg.QuotaBytes == 0 {
		cfg.QuotaBytes = DefaultQuotaBytes
	}
	m := &Member{cfg: cfg, fatal: newFatalSignal()}
	m.quiet.Store(true)
	ecfg, err := m.embedConfig(klog.FromContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := m.startAndElect(ctx, ecfg); err != nil {
		return nil, err
	}
	m.client = v3client.New(m.etcd.Server)
	m.space = &spaceCheck{client: m.client, defrag: m.etcd.Server.Backend().Defrag, quota: cfg.QuotaBytes, dir: cfg.Dir}
	if err := m.space.recover(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if err := reserveSpace(cfg.Dir, m.etcd.Server.Backend().SizeInUse()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.client.KV = explainNoSpace(m.client.KV, m.space)
	m.quiet.Store(false)
	return m, nil
}

func (m *Member) embedConfig(log klog.Logger) (*embed.Config, error) {
	socket := filepath.Join(m.cfg.SocketDir, socketName)
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("the path of etcd's socket is %d bytes long, the kernel takes %d: %s: choose a shorter directory",
			len(socket), maxSocketPath, socket)
	}
	// A socket left by a process that was killed refuses the new listener. The
	// lock on the data directory says that nobody serves on it.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket of etcd: %w", err)
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's directory: %w", err)
	}
	c := embed.NewConfig()
	c.Name = "errand"
	c.Dir = m.cfg.Dir
	// No peer will ever connect: the advertised URL stays a name in the
	// membership, and nothing listens.
	c.ListenPeerUrls = nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	unix := url.URL{Scheme: "unix", Path: socket}
	c.ListenClientUrls = []url.URL{unix}
	c.AdvertiseClientUrls = []url.URL{unix}
	c.EnableGRPCGateway = false
	c.TickMs = tickMillis
	c.ElectionMs = electionMillis
	c.BackendBatchInterval = commitInterval
	c.QuotaBackendBytes = m.cfg.QuotaBytes
	c.BootstrapDefragThresholdMegabytes = defragThresholdMegabytes
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotCount, snapshotCatchUp
	// The API server compacts (it must know the revision); etcd itself needn't.
	c.AutoCompactionRetention = "0"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(log, m.fatal, &m.quiet))
	return c, nil
}

func (m *Member) startAndElect(ctx context.Context, cfg *embed.Config) error {
	starting.Lock()
	defer starting.Unlock()
	if err := m.start(cfg); err != nil {
		return explainStartError(m.cfg.Dir, err)
	}
	if err := os.Chmod(m.Socket(), 0o600); err != nil { // who may connect may do anything
		return errors.Join(fmt.Errorf("close the socket of etcd to others: %w", err), m.Close())
	}
	if err := m.elect(ctx); err != nil {
		return errors.Join(err, m.Close())
	}
	return nil
}

// start runs embed in a goroutine of its own: where etcd gives up it calls the
// logger's Fatal or Panic, and that ends the goroutine, this one or one that it
// waits for, rather than the process.
func (m *Member) start(cfg *embed.Config) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("etcd stopped while it started")
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("etcd panicked while it started: %v", r)
			}
			done <- err
		}()
		m.etcd, err = embed.StartEtcd(cfg)
	}()
	var err error
	select {
	case err = <-done:
	case <-m.fatal.done:
	}
	if ferr := m.fatal.Err(); ferr != nil {
		return ferr
	}
	return err
}

// Client returns a client that calls the member directly, without a socket.
// The caller must not close it.
func (m *Member) Client() *clientv3.Client { return m.client }

// Socket returns the path of the unix socket that etcdctl connects to:
// etcdctl --endpoints=unix://<path>.
func (m *Member) Socket() string { return filepath.Join(m.cfg.SocketDir, socketName) }

// Failed is closed when the member can't go on, as when the disk refuses a
// write; Err then says why. The process must stop: what the member holds in
// memory may differ from what it holds on disk.
func (m *Member) Failed() <-chan struct{} { return m.fatal.done }

// Err returns why the member failed and what to do, nil while it hasn't failed.
func (m *Member) Err() error {
	err := m.fatal.Err()
	if err == nil {
		return nil
	}
	return explainFailure(m.cfg.Dir, err)
}

// Ping reads through the member. It fails if the member did or doesn't answer.
func (m *Member) Ping(ctx context.Context) error {
	if err := m.Err(); err != nil {
		return err
	}
	if _, err := m.client.Get(ctx, "health"); err != nil {
		return fmt.Errorf("read from the store: %w", err)
	}
	return nil
}

// CheckSpace returns a *NoSpaceError if writes are refused for want of space.
func (m *Member) CheckSpace(ctx context.Context) error { return m.space.check(ctx) }

// closeTimeout bounds Close: everything acknowledged is on disk already, so
// that waiting for the database is a courtesy to the next start.
const closeTimeout = 500 * time.Millisecond

// ErrStillClosing says that a member takes its time to close its files.
var ErrStillClosing = errors.New("etcd is still closing")

// Close stops the member and waits until its files are closed, but no longer
// than half a second: then it returns ErrStillClosing. The data is safe even so.
// A member that failed isn't waited for.
func (m *Member) Close() error {
	m.quiet.Store(true)
	if m.client != nil {
		// Fails only for the context that it was itself cancelled with.
		_ = m.client.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.etcd.Close()
	}()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-m.fatal.done:
		return nil // Err tells; what is left of the member can't be waited for
	case <-timeout.C:
		return fmt.Errorf("%w: %s", ErrStillClosing, m.cfg.Dir)
	}
}
