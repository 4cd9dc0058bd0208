package etcd

import (
	"context"
	"expvar"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	// lookInterval separates looks at a member that applies what it finds in its
	// log: 2 to 10 ms, and nothing says when it is done.
	lookInterval = time.Millisecond
	electTimeout = 10 * time.Second
)

// starting is held while a member starts: etcd publishes the raft status of the
// one that was started last in this process.
var starting sync.Mutex

// elect makes the only member leader at once. A follower waits for an election
// timeout, so that a leader elsewhere may speak up; here there can't be one. The
// raft message with which a leader hands over its office starts an election
// without waiting.
func (m *Member) elect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, electTimeout)
	defer cancel()
	if err := m.waitApplied(ctx); err != nil {
		return err
	}
	server := m.etcd.Server
	id := uint64(server.MemberID())
	err := server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id})
	if err != nil {
		return fmt.Errorf("start etcd's election: %w", err)
	}
	select {
	case <-server.ReadyNotify():
		return nil
	case <-m.fatal.done:
		return m.fatal.Err()
	case <-ctx.Done():
		return fmt.Errorf("etcd didn't become ready: %w", ctx.Err())
	}
}

// waitApplied returns when the member has applied all that its log says is
// committed. An election before that is ignored while a membership change
// waits, and worse: raft looks through entries that etcd may have dropped.
func (m *Member) waitApplied(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for !applied(m.etcd.Server) {
		select {
		case <-tick.C:
		case <-m.fatal.done:
			return m.fatal.Err()
		case <-ctx.Done():
			return fmt.Errorf("etcd didn't apply its log: %w", ctx.Err())
		}
	}
	return nil
}

// applied is also true when the election came by itself.
func applied(server *etcdserver.EtcdServer) bool {
	if server.Leader() != types.ID(raft.None) {
		return true
	}
	published, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	status, ok := published.Value().(raft.Status)
	return ok && status.GetCommit() > 0 && status.Applied == status.GetCommit()
}
