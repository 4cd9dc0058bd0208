package network

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A packet must be accepted by every base chain on its hook, so an accept in a
// table of our own doesn't help against a host whose forward chain drops by
// policy, as Docker sets it up, nor against one whose input chain does, as ufw
// sets it up. Such chains get accept rules at their head, marked with the table's
// name so that they are found again.

// admit sees to it that each such chain that drops by policy has the accept
// rules, and no other. With afresh it writes even those anew that are there:
// another build's may read otherwise.
func (f *firewall) admit(afresh bool) error {
	err := f.tryAdmit(afresh)
	if afresh && errors.Is(err, unix.ENOENT) {
		// The kernel doesn't have iptables' matches: then nobody lists by
		// iptables either.
		f.noMatches = true
		err = f.tryAdmit(afresh)
	}
	return err
}

func (f *firewall) tryAdmit(afresh bool) error {
	return f.eachChain(func(c *nftables.Conn, chain *nftables.Chain, mine []*nftables.Rule) error {
		var want [][]expr.Any
		if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			want = f.acceptRulesFor(chain)
		}
		if !afresh && len(mine) == len(want) {
			return nil
		}
		for _, r := range mine {
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
		for _, r := range want {
			c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: r, UserData: mark(f.table.Name)})
		}
		return nil
	})
}

// acceptRulesFor are the rules in the form that suits whose chain it is.
func (f *firewall) acceptRulesFor(chain *nftables.Chain) [][]expr.Any {
	iptables := !f.noMatches && chain.Table.Family == nftables.TableFamilyIPv4 && chain.Table.Name == "filter" && (chain.Name == "FORWARD" || chain.Name == "INPUT")
	switch {
	case on(chain, nftables.ChainHookInput):
		return f.inputRules(iptables)
	case iptables:
		return iptablesRules(f.bridge)
	}
	return acceptRules(f.bridge)
}

func on(chain *nftables.Chain, hook *nftables.ChainHook) bool {
	return chain.Hooknum != nil && *chain.Hooknum == *hook
}

// dismiss takes the accept rules out again, also of chains that don't drop any
// more.
func (f *firewall) dismiss() error {
	err := f.eachChain(func(c *nftables.Conn, _ *nftables.Chain, mine []*nftables.Rule) error {
		var errs []error
		for _, r := range mine {
			errs = append(errs, c.DelRule(r))
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // somebody has just removed them
	}
	return err
}

// eachChain calls change for each of the host's forward and input chains with
// the rules in it that bear our mark, and makes the changes at once.
func (f *firewall) eachChain(change func(c *nftables.Conn, chain *nftables.Chain, mine []*nftables.Rule) error) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := chainsOnTheWay(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		mine, err := marked(c, chain, f.table.Name)
		if err != nil {
			return err
		}
		if err := change(c, chain, mine); err != nil {
			return fmt.Errorf("change the host's chain %q: %w", chain.Name, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change the host's firewall: %w", err)
	}
	return nil
}

// chainsOnTheWay are the host's base chains that pods' packets pass: on their way
// through the host, and to it.
func chainsOnTheWay(c *nftables.Conn) ([]*nftables.Chain, error) {
	var out []*nftables.Chain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list the host's nftables chains: %w", err)
		}
		for _, ch := range chains {
			if on(ch, nftables.ChainHookForward) || on(ch, nftables.ChainHookInput) {
				out = append(out, ch)
			}
		}
	}
	return out, nil
}

func marked(c *nftables.Conn, chain *nftables.Chain, table string) ([]*nftables.Rule, error) {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return nil, fmt.Errorf("list the rules of the host's chain %q: %w", chain.Name, err)
	}
	var mine []*nftables.Rule
	for _, r := range rules {
		if bytes.Equal(r.UserData, mark(table)) {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

// mark is a rule's comment in the encoding of nft: type, length, text.
func mark(table string) []byte {
	const typeComment = 0
	text := append([]byte(table), 0)
	return append([]byte{typeComment, byte(len(text))}, text...)
}

// AcceptRules says in words which of the host's own chains hold rules of the
// instance with that table, for package leakcheck.
func AcceptRules(table string) ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := chainsOnTheWay(c)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, chain := range chains {
		mine, err := marked(c, chain, table)
		if err != nil {
			return nil, err
		}
		if len(mine) > 0 {
			out = append(out, fmt.Sprintf("%d rules in the nftables chain %s %s", len(mine), chain.Table.Name, chain.Name))
		}
	}
	return out, nil
}
