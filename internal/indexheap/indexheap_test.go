package indexheap

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type item struct {
	Place
	key int
}

// Whatever is put, moved and taken out, the least comes first, and each is in once.
func TestHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := New(func(a, b *item) bool { return a.key < b.key })
	all := make([]*item, 50)
	for i := range all {
		all[i] = &item{}
	}
	in := map[*item]bool{}
	least := func() int {
		keys := []int{}
		for i := range in {
			keys = append(keys, i.key)
		}
		return slices.Min(keys)
	}
	for range 20_000 {
		one := all[random.IntN(len(all))]
		switch random.IntN(4) {
		case 0, 1:
			one.key = random.IntN(100)
			if in[one] || random.IntN(2) == 0 {
				h.Put(one)
				in[one] = true
			}
		case 2:
			h.Remove(one)
			delete(in, one)
		case 3:
			if len(in) == 0 {
				continue
			}
			want := least()
			first := h.First()
			if got := h.Pop(); got != first || got.key != want || !in[got] {
				t.Fatalf("first %d, taken out %d, want %d", first.key, got.key, want)
			}
			delete(in, first)
		}
		if h.Len() != len(in) || len(in) > 0 && h.First().key != least() {
			t.Fatalf("%d are in, want %d", h.Len(), len(in))
		}
	}
}
