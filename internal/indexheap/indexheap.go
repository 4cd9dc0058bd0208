// Package indexheap is a heap whose items know their places in it, so that one can be
// taken out, or moved when its order has changed, from wherever it is.
//
// It owns places alone: what comes first is its user's to say.
package indexheap

import "container/heap"

// Place is an item's place in the one heap that it may be in; embed it. The zero
// value is in none.
type Place struct{ number int } // from 1; 0 is none

func (p *Place) place() *Place { return p }

// Item is a pointer to a struct in which Place is embedded.
type Item interface {
	comparable
	place() *Place
}

// Heap orders items. It isn't safe for concurrent use.
type Heap[T Item] struct{ all ordered[T] }

// New returns an empty heap, of which that comes first that is less than all others.
func New[T Item](less func(a, b T) bool) *Heap[T] {
	return &Heap[T]{ordered[T]{less: less}}
}

// Len is how many items are in it.
func (h *Heap[T]) Len() int { return len(h.all.items) }

// First returns the first item, which stays. There must be one.
func (h *Heap[T]) First() T { return h.all.items[0] }

// Pop takes the first item out. There must be one.
func (h *Heap[T]) Pop() T { return heap.Pop(&h.all).(T) }

// Put puts an item in, or to its new place if it is in already.
func (h *Heap[T]) Put(item T) {
	if n := item.place().number; n > 0 {
		heap.Fix(&h.all, n-1)
		return
	}
	heap.Push(&h.all, item)
}

// Remove takes an item out, if it is in.
func (h *Heap[T]) Remove(item T) {
	if n := item.place().number; n > 0 {
		heap.Remove(&h.all, n-1)
	}
}

// ordered is what container/heap works on.
type ordered[T Item] struct {
	items []T
	less  func(a, b T) bool
}

func (o *ordered[T]) Len() int { return len(o.items) }

func (o *ordered[T]) Less(i, j int) bool { return o.less(o.items[i], o.items[j]) }

func (o *ordered[T]) Swap(i, j int) {
	o.items[i], o.items[j] = o.items[j], o.items[i]
	o.items[i].place().number, o.items[j].place().number = i+1, j+1
}

// Push implements heap.Interface.
func (o *ordered[T]) Push(x any) {
	item := x.(T)
	o.items = append(o.items, item)
	item.place().number = len(o.items)
}

// Pop implements heap.Interface.
func (o *ordered[T]) Pop() any {
	last := len(o.items) - 1
	item := o.items[last]
	clear(o.items[last:]) // so that it can be collected
	o.items = o.items[:last]
	item.place().number = 0
	return item
}
