// Package keptlogs keeps the logs of Jobs' containers that Kubernetes would remove:
// of a pod that is deleted, and of a container's runs that were followed by others.
//
// It owns a directory in which a run of a container has its log's files, linked from
// where the runtime wrote them, and a record beside them. The record comes last and
// goes first, each at once: a run without one isn't kept, whatever is there of it, and
// goes when the directory is read. What is kept has two bounds, a size, beyond which
// the oldest go, and its Job, which it outlives by an hour.
//
// It doesn't own logs of pods that are there, nor what they say.
package keptlogs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	batchinformers "k8s.io/client-go/informers/batch/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/keymutex"
)

// Grace is how long logs outlive their Job and the last of its pods: a Job that goes
// when it has finished (TTL 0) is looked at afterwards.
const Grace = time.Hour

const defaultMaxRuns = 10_000

// Config is what a Keeper needs.
type Config struct {
	// Dir is the Keeper's own, on the file system of the logs; it is made.
	Dir string
	// MaxSize is how many bytes of the disk may be taken; 0 keeps nothing.
	MaxSize int64
	// MaxRuns is how many runs are kept, which costs memory and the time of a start;
	// default 10,000.
	MaxRuns int
	// Jobs are those in the API.
	Jobs batchinformers.JobInformer
	// Clock defaults to the real one.
	Clock clock.Clock
}

// Keeper keeps logs. Make it with New and run it once; its other methods may be called
// concurrently, and wait until Run has read what is there.
type Keeper struct {
	cfg   Config
	store *store
	read  chan struct{} // closed once the directory has been read
	wake  chan struct{} // a Job has gone
	// keeping has those wait that keep the same run, whose files are the same.
	keeping keymutex.KeyMutex

	mu     sync.Mutex
	synced bool              // cfg.Jobs has all Jobs
	runs   map[string]*entry // by name
	byAge  *list.List        // of *entry, the oldest first
	byJob  map[types.UID]map[*entry]struct{}
	size   int64                   // of all runs
	gone   map[types.UID]time.Time // when Jobs that aren't there any more were last there
}

// entry is a run that is kept.
type entry struct {
	*Run
	name string
	age  *list.Element
}

// New returns a Keeper. It reads and writes nothing yet.
func New(cfg Config) (*Keeper, error) {
	if !filepath.IsAbs(cfg.Dir) || cfg.MaxSize < 0 || cfg.Jobs == nil {
		return nil, errors.New("keptlogs: Dir must be absolute, MaxSize not negative, Jobs set")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.MaxRuns == 0 {
		cfg.MaxRuns = defaultMaxRuns
	}
	cfg.Jobs.Informer() // so that it is started with its factory
	return &Keeper{
		cfg:   cfg,
		store: &store{dir: cfg.Dir},
		read:  make(chan struct{}),
		wake:  make(chan struct{}, 1),

		keeping: keymutex.NewHashed(0),

		runs:  map[string]*entry{},
		byAge: list.New(),
		byJob: map[types.UID]map[*entry]struct{}{},
		gone:  map[types.UID]time.Time{},
	}, nil
}

// Run removes what is kept no longer, until ctx ends. An error means that the
// directory can't be used.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.load(ctx); err != nil {
		return fmt.Errorf("read the logs that are kept: %w", err)
	}
	close(k.read)
	registration, err := k.cfg.Jobs.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if job, ok := obj.(*batchv1.Job); ok {
			k.jobGone(ctx, job.UID)
		}
	}})
	if err != nil {
		return fmt.Errorf("watch Jobs: %w", err)
	}
	defer func() { _ = k.cfg.Jobs.Informer().RemoveEventHandler(registration) }()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	if err := k.missJobs(ctx); err != nil {
		return fmt.Errorf("list Jobs: %w", err)
	}
	for {
		if !k.await(ctx, k.expire(ctx)) {
			return nil
		}
	}
}

// await waits until it is that late (zero is never) or a Job has gone; false if ctx
// has ended.
func (k *Keeper) await(ctx context.Context, next time.Time) bool {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := k.cfg.Clock.NewTimer(next.Sub(k.cfg.Clock.Now()))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
	case <-k.wake:
	}
	return true
}

// load reads the directory, and removes from it what is not whole, or too much.
func (k *Keeper) load(ctx context.Context) error {
	if err := os.MkdirAll(k.cfg.Dir, 0o700); err != nil {
		return err
	}
	found, err := k.store.load()
	if err != nil {
		return err
	}
	for _, file := range found.leftovers {
		if err := os.RemoveAll(k.store.path(file)); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot remove what is left of a log that isn't kept")
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = found.gone
	for _, f := range found.runs {
		k.add(f.name, f.run)
	}
	k.shrink(ctx)
	return nil
}

// missJobs notes which Jobs went while nobody watched: as far as is known, just now.
func (k *Keeper) missJobs(ctx context.Context) error {
	jobs, err := k.cfg.Jobs.Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	there := make(map[types.UID]bool, len(jobs))
	for _, j := range jobs {
		there[j.UID] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.synced = true
	for uid := range k.byJob {
		if _, known := k.gone[uid]; !known && !there[uid] {
			k.note(ctx, uid)
		}
	}
	return nil
}

// jobGone notes that a Job has gone.
func (k *Keeper) jobGone(ctx context.Context, uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.byJob[uid]) > 0 {
		k.note(ctx, uid)
	}
}

// note begins the grace of a Job's logs, or begins it anew. k.mu must be held.
func (k *Keeper) note(ctx context.Context, uid types.UID) {
	now := k.cfg.Clock.Now()
	k.gone[uid] = now
	if err := k.store.noteGone(uid, now); err != nil {
		klog.FromContext(ctx).V(2).Info("A restart will forget when a Job went whose logs are kept", "jobUID", uid, "err", err)
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// expire removes the logs of Jobs that went long enough ago, and returns when to look
// again; zero is never.
func (k *Keeper) expire(ctx context.Context) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	over, next := expired(k.gone, k.cfg.Clock.Now())
	for _, uid := range over {
		for e := range k.byJob[uid] {
			k.drop(ctx, e)
		}
	}
	return next
}

// Keep keeps a run's log, whose path log is, unless it does already or the log is
// larger than all logs may be. The log itself stays. The error is ctx's if that ended
// before the directory had been read.
func (k *Keeper) Keep(ctx context.Context, run Run, log string) error {
	if err := k.ready(ctx); err != nil || k.cfg.MaxSize == 0 {
		return err
	}
	name, err := run.name()
	if err != nil {
		return err
	}
	k.keeping.LockKey(name)
	defer func() { _ = k.keeping.UnlockKey(name) }() // which never fails
	if k.has(name) {
		return nil
	}
	run.KeptAt = k.cfg.Clock.Now()
	if run.Files, run.Size, err = k.store.link(name, log); err != nil {
		return errors.Join(fmt.Errorf("keep log %s: %w", log, err), k.store.unlink(name, run.Files))
	}
	if run.Size > k.cfg.MaxSize {
		klog.FromContext(ctx).V(2).Info("A log is too large to be kept", "path", log, "size", run.Size)
		return k.store.unlink(name, run.Files)
	}
	if err := k.store.record(name, &run); err != nil {
		return errors.Join(fmt.Errorf("keep log %s: %w", log, err), k.store.unlink(name, run.Files))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.add(name, &run)
	if k.synced && !k.jobIsThere(&run) {
		k.note(ctx, run.JobUID) // it went before its pod
	}
	k.shrink(ctx)
	return nil
}

func (k *Keeper) jobIsThere(run *Run) bool {
	job, err := k.cfg.Jobs.Lister().Jobs(run.Namespace).Get(run.JobName)
	return err == nil && job.UID == run.JobUID
}

func (k *Keeper) ready(ctx context.Context) error {
	select {
	case <-k.read:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) has(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.runs[name] != nil
}

// DropAll removes all that is kept: the disk is full.
func (k *Keeper) DropAll(ctx context.Context) error {
	if err := k.ready(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.runs {
		k.drop(ctx, e)
	}
	return nil
}

// add takes up a run that is on disk. k.mu must be held.
func (k *Keeper) add(name string, r *Run) {
	e := &entry{Run: r, name: name}
	e.age = k.byAge.PushBack(e)
	k.runs[name] = e
	if k.byJob[r.JobUID] == nil {
		k.byJob[r.JobUID] = map[*entry]struct{}{}
	}
	k.byJob[r.JobUID][e] = struct{}{}
	k.size += r.Size
}

// shrink removes the oldest runs that are too much. k.mu must be held.
func (k *Keeper) shrink(ctx context.Context) {
	for k.size > k.cfg.MaxSize || len(k.runs) > k.cfg.MaxRuns {
		k.drop(ctx, k.byAge.Front().Value.(*entry))
	}
}

// drop removes a run, from the disk too, and the note of when its Job went with the
// Job's last run. What can't be removed is found by the next Keeper. k.mu must be held.
func (k *Keeper) drop(ctx context.Context, e *entry) {
	delete(k.runs, e.name)
	k.byAge.Remove(e.age)
	k.size -= e.Size
	err := k.store.remove(e.name, e.Files)
	delete(k.byJob[e.JobUID], e)
	if len(k.byJob[e.JobUID]) == 0 {
		delete(k.byJob, e.JobUID)
		delete(k.gone, e.JobUID)
		err = errors.Join(err, k.store.forgetGone(e.JobUID))
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot remove a log that is kept no longer")
	}
}
