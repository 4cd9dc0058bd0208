package seccompbpf

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// table has a profile's rules for one architecture.
type table struct {
	rules map[uint32]clauses
	// last is the largest number of a call that the profile names, with or
	// without effect. Multiplexed calls don't count, even by their own numbers.
	last uint32
}

// clauses are the rules for one call. Either there is one without conditions,
// or all that overlap have the same action: their order is of no account.
type clauses []clause

type clause struct {
	conditions []condition // all of which have to match; at most one for an index
	action     verdict
}

func newTable(p *profile, a *arch) (*table, error) {
	t := &table{rules: make(map[uint32]clauses, 512)}
	for _, r := range p.rules {
		for _, name := range r.names {
			if err := t.addName(a, r, name, p.action); err != nil {
				return nil, fmt.Errorf("syscall %s: %w", name, err)
			}
		}
	}
	return t, nil
}

// addName adds a rule for a call, by all the ways in that the architecture has.
func (t *table) addName(a *arch, r rule, name string, otherwise verdict) error {
	number, direct := a.number(name)
	m, indirect := a.multiplexed[name]
	if direct && !indirect {
		t.last = max(t.last, number)
	}
	if r.action == otherwise {
		return nil
	}
	if direct {
		if err := t.add(a, r, number); err != nil {
			return err
		}
	}
	if indirect {
		number, _ = a.number(m.call)
		return t.add(a, r.through(m.id), number)
	}
	return nil
}

// through is the rule for a call that is made through another one, by its id.
func (r rule) through(id uint64) rule {
	out := r
	out.alternatives = nil
	for _, conditions := range r.alternatives {
		rest := slices.DeleteFunc(slices.Clone(conditions), func(c condition) bool { return c.index == 0 })
		out.alternatives = append(out.alternatives, append(rest, condition{op: specs.OpEqualTo, value: id}))
	}
	return out
}

func (t *table) add(a *arch, r rule, number uint32) error {
	for _, conditions := range r.alternatives {
		c := clause{action: r.action}
		for _, cond := range conditions {
			if !a.wide {
				cond = cond.narrow()
			}
			if mask, _, ok := cond.bits(); ok && mask == 0 {
				continue // always matches
			}
			c.conditions = append(c.conditions, cond)
		}
		var err error
		if t.rules[number], err = t.rules[number].with(c); err != nil {
			return err
		}
	}
	return nil
}

var errOverlap = errors.New("rules of different actions overlap")

func (cs clauses) with(c clause) (clauses, error) {
	switch {
	case len(cs) == 1 && len(cs[0].conditions) == 0:
		return cs, nil
	case len(c.conditions) == 0:
		return clauses{c}, nil
	}
	for _, other := range cs {
		if other.action != c.action && !disjoint(other.conditions, c.conditions) {
			return nil, errOverlap
		}
	}
	return append(cs, c), nil
}

// disjoint reports whether no call matches both. It may miss some that are.
func disjoint(a, b []condition) bool {
	return slices.ContainsFunc(a, func(x condition) bool {
		return slices.ContainsFunc(b, func(y condition) bool { return x.index == y.index && x.excludes(y) })
	})
}

func (c condition) excludes(other condition) bool {
	m1, v1, ok1 := c.bits()
	m2, v2, ok2 := other.bits()
	if ok1 && ok2 {
		return (v1^v2)&m1&m2 != 0
	}
	// What is disjoint among 64-bit values is so among 32-bit ones.
	r1, ok1 := c.ranges(math.MaxUint64)
	r2, ok2 := other.ranges(math.MaxUint64)
	if !ok1 || !ok2 {
		return false
	}
	for _, x := range r1 {
		for _, y := range r2 {
			if x.first <= y.last && y.first <= x.last {
				return false
			}
		}
	}
	return true
}

// node decides a call by its arguments.
func (cs clauses) node(wide bool, otherwise verdict) node {
	next := node(otherwise)
	var byIndex [maxArgs]clauses
	for _, c := range cs {
		if len(c.conditions) == 0 {
			return c.action
		}
		if cond := c.conditions[0]; len(c.conditions) == 1 {
			if _, ok := cond.ranges(last(wide)); ok {
				byIndex[cond.index] = append(byIndex[cond.index], c)
				continue
			}
		}
		next = c.node(wide, next)
	}
	// Tried before the others: one search, however many values there are.
	for index, group := range byIndex {
		if len(group) > 0 {
			next = group.search(uint(index), wide, next)
		}
	}
	return next
}

// last is the largest argument.
func last(wide bool) uint64 {
	if wide {
		return math.MaxUint64
	}
	return math.MaxUint32
}

// node tests the conditions one after the other.
func (c clause) node(wide bool, otherwise node) node {
	next := node(c.action)
	for _, cond := range c.conditions {
		if _, ok := cond.ranges(last(wide)); ok {
			next = clauses{{conditions: []condition{cond}}}.searchTo(cond.index, wide, otherwise, func(clause) node { return next })
			continue
		}
		mask, value, _ := cond.bits()
		next = testBits(cond.index, mask, value, next, otherwise)
	}
	return next
}

// search finds the argument among the values of clauses that have one
// condition each, on the same argument.
func (cs clauses) search(index uint, wide bool, otherwise node) node {
	return cs.searchTo(index, wide, otherwise, func(c clause) node { return c.action })
}

func (cs clauses) searchTo(index uint, wide bool, otherwise node, to func(clause) node) node {
	s := all(last(wide), otherwise)
	for _, c := range cs {
		in, _ := c.conditions[0].ranges(last(wide))
		for _, r := range in {
			s.paint(r.first, r.last, to(c))
		}
	}
	if !wide {
		return &search{offset: offsetLow(index), spans: s}
	}
	return &search{offset: offsetHigh(index), spans: s.halves(offsetLow(index))}
}

// testBits looks at those halves of an argument that the mask has bits in.
func testBits(index uint, mask, value uint64, yes, no node) node {
	if low := uint32(mask); low != 0 {
		yes = &test{offset: offsetLow(index), mask: low, value: uint32(value), yes: yes, no: no}
	}
	if high := uint32(mask >> 32); high != 0 {
		yes = &test{offset: offsetHigh(index), mask: high, value: uint32(value >> 32), yes: yes, no: no}
	}
	return yes
}
