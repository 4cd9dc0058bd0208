package network

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A packet must be accepted by every base chain on its hook, so an accept in a
// table of our own doesn't help against a host whose forward chain drops by
// policy, as Docker sets it up. Such chains get the two accept rules at their
// head, marked with the table's name so that they are found again.

// admit puts the accept rules into each forward chain that drops by policy and
// doesn't have them yet.
func (f *firewall) admit() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := droppingForwardChains(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		mine, err := f.marked(c, chain)
		if err != nil {
			return err
		}
		if len(mine) > 0 {
			continue
		}
		for _, r := range acceptRules(f.bridge) {
			c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: r, UserData: f.mark()})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("accept pods' packets in the host's forward chain: %w", err)
	}
	return nil
}

// dismiss takes the accept rules out again.
func (f *firewall) dismiss() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := droppingForwardChains(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		mine, err := f.marked(c, chain)
		if err != nil {
			return err
		}
		for _, r := range mine {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("remove a rule from the host's chain %q: %w", chain.Name, err)
			}
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rules from the host's forward chain: %w", err)
	}
	return nil
}

func droppingForwardChains(c *nftables.Conn) ([]*nftables.Chain, error) {
	var out []*nftables.Chain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list the host's nftables chains: %w", err)
		}
		for _, ch := range chains {
			if ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
				out = append(out, ch)
			}
		}
	}
	return out, nil
}

func (f *firewall) marked(c *nftables.Conn, chain *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return nil, fmt.Errorf("list the rules of the host's chain %q: %w", chain.Name, err)
	}
	var mine []*nftables.Rule
	for _, r := range rules {
		if bytes.Equal(r.UserData, f.mark()) {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

// mark is the rule's comment in the encoding of nft: type, length, text.
func (f *firewall) mark() []byte {
	const typeComment = 0
	text := append([]byte(f.table.Name), 0)
	return append([]byte{typeComment, byte(len(text))}, text...)
}
