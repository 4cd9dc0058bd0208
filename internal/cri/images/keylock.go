package images

import (
	"context"
	"sync"
)

// keyLock is a mutex per key. It implements unpack.KeyedLocker.
type keyLock struct {
	mu    sync.Mutex
	locks map[string]*keyedMutex
}

type keyedMutex struct {
	held  chan struct{} // has room for the one who holds the lock
	users int           // holder and waiters
}

func newKeyLock() *keyLock { return &keyLock{locks: map[string]*keyedMutex{}} }

// Lock waits for key, or for ctx's end, whose error it returns.
func (k *keyLock) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	l, ok := k.locks[key]
	if !ok {
		l = &keyedMutex{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.leave(key, l)
		return ctx.Err()
	}
}

// Unlock frees key, which the caller has locked.
func (k *keyLock) Unlock(key string) {
	k.mu.Lock()
	l := k.locks[key]
	k.mu.Unlock()
	<-l.held
	k.leave(key, l)
}

func (k *keyLock) leave(key string, l *keyedMutex) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, key)
	}
}
