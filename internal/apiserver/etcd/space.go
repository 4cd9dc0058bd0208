package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// NoSpaceError says that the database reached its quota: reads and deletions go
// on, writes are refused. The API server hands it to its clients as it stands.
type NoSpaceError struct {
	// Dir is the member's directory.
	Dir string
	// Quota is in bytes.
	Quota int64
}

// Error implements error.
func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("the store is full: the database in %s reached its quota of %d MiB: delete objects that aren't needed and restart errand, which frees their space, or raise the quota",
		e.Dir, e.Quota>>20)
}

// Status implements apierrors.APIStatus.
func (e *NoSpaceError) Status() metav1.Status {
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInsufficientStorage,
		Reason:  "InsufficientStorage",
		Message: e.Error(),
	}
}

// marginPart of the quota must be free for the alarm to be lifted: the next few
// writes would raise it again.
const marginPart = 10

// spaceCheck knows whether the store accepts writes.
type spaceCheck struct {
	client *clientv3.Client
	defrag func() error
	quota  int64
	dir    string
}

func (s *spaceCheck) noSpace() error { return &NoSpaceError{Dir: s.dir, Quota: s.quota} }

// check looks for the quota's alarm.
func (s *spaceCheck) check(ctx context.Context) error {
	full, err := s.alarmed(ctx)
	if err != nil {
		return err
	}
	if full {
		return s.noSpace()
	}
	return nil
}

func (s *spaceCheck) alarmed(ctx context.Context) (bool, error) {
	alarms, err := s.client.AlarmList(ctx)
	if err != nil {
		return false, fmt.Errorf("list the store's alarms: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		if alarm.GetAlarm() == etcdserverpb.AlarmType_NOSPACE {
			return true, nil
		}
	}
	return false, nil
}

// recover lifts the alarm of a store that filled up, if room can be made: it
// drops old revisions, gives their pages back and compares with the quota,
// which may have been raised. It leaves the alarm otherwise, for Check to tell.
func (s *spaceCheck) recover(ctx context.Context) error {
	full, err := s.alarmed(ctx)
	if err != nil || !full {
		return err
	}
	log := klog.FromContext(ctx)
	log.Info("The store was full: compacting and defragmenting it", "dir", s.dir)
	current, err := s.client.Get(ctx, "health")
	if err != nil {
		return fmt.Errorf("read from the store: %w", err)
	}
	_, err = s.client.Compact(ctx, current.Header.GetRevision(), clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact the full store: %w", err)
	}
	if err := s.defrag(); err != nil {
		return fmt.Errorf("defragment the full store: %w", err)
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return fmt.Errorf("read the store's size: %w", err)
	}
	if status.DbSize > s.quota-s.quota/marginPart {
		log.Error(s.noSpace(), "No room could be made in the store", "bytes", status.DbSize)
		return nil
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("lift the full store's alarm: %w", err)
	}
	return nil
}

// explainNoSpace makes refused writes say what to do.
func explainNoSpace(kv clientv3.KV, space *spaceCheck) clientv3.KV {
	return &explainingKV{KV: kv, space: space}
}

type explainingKV struct {
	clientv3.KV
	space *spaceCheck
	once  sync.Once
}

// explain also writes the first refusal to the log: those who write may retry
// silently.
func (k *explainingKV) explain(ctx context.Context, err error) error {
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		return err
	}
	k.once.Do(func() { klog.FromContext(ctx).Error(k.space.noSpace(), "A write was refused") })
	return k.space.noSpace()
}

func (k *explainingKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := k.KV.Put(ctx, key, val, opts...)
	return resp, k.explain(ctx, err)
}

func (k *explainingKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	resp, err := k.KV.Do(ctx, op)
	return resp, k.explain(ctx, err)
}

func (k *explainingKV) Txn(ctx context.Context) clientv3.Txn {
	return &explainingTxn{Txn: k.KV.Txn(ctx), ctx: ctx, kv: k}
}

type explainingTxn struct {
	clientv3.Txn
	ctx context.Context // the one that Txn was made with
	kv  *explainingKV
}

func (t *explainingTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(cs...)
	return t
}

func (t *explainingTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *explainingTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Else(ops...)
	return t
}

func (t *explainingTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.Txn.Commit()
	return resp, t.kv.explain(t.ctx, err)
}
