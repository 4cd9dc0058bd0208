package clusterdns

import (
	"context"
	"net/netip"

	"github.com/miekg/dns"
)

// maxCNAMEs bounds how many ExternalNames that lead to each other are followed.
const maxCNAMEs = 8

// payload is the largest answer in bytes that is sent by UDP whatever the asker
// says: no path has to fragment it.
const payload = 1232

// resolver answers questions. It is safe for concurrent use.
type resolver struct {
	index *index
	// outside answers what isn't answered here. It never fails: its answer
	// may say that it did.
	outside func(ctx context.Context, q *dns.Msg) *dns.Msg
	// server is this server's own address, pods the range of the pods'.
	server netip.Addr
	pods   netip.Prefix
}

// resolve returns the whole answer; what of it fits by UDP is another's.
func (r *resolver) resolve(ctx context.Context, q *dns.Msg) *dns.Msg {
	switch opt := q.IsEdns0(); {
	case q.Opcode != dns.OpcodeQuery:
		return refusal(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		return refusal(q, dns.RcodeFormatError)
	case opt != nil && opt.Version() != 0:
		return withEDNS(refusal(q, dns.RcodeBadVers), q)
	}
	question := q.Question[0]
	switch {
	case question.Qclass != dns.ClassINET, question.Qtype == dns.TypeAXFR, question.Qtype == dns.TypeIXFR:
		return withEDNS(refusal(q, dns.RcodeRefused), q)
	case dns.IsSubDomain(zone, question.Name):
		return withEDNS(r.inZone(ctx, q), q)
	}
	if addr, ok := addrOf(question.Name); ok {
		ours := r.pods.Contains(addr)
		if n := r.index.reverse(question.Name, addr, ours); n.exists || ours {
			return withEDNS(reply(q, n), q)
		}
	}
	return withEDNS(r.outside(ctx, q), q)
}

// inZone answers from the index and follows CNAMEs to their ends, as pods' own
// resolvers leave that to their server.
func (r *resolver) inZone(ctx context.Context, q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	var chain []dns.RR
	for range maxCNAMEs {
		n := r.index.lookup(question.Name, r.server)
		alias, ok := aliasOf(n)
		if !ok || question.Qtype == dns.TypeCNAME || question.Qtype == dns.TypeANY {
			step := q.Copy()
			step.Question[0] = question
			return prepend(reply(step, n), q, chain)
		}
		chain = append(chain, alias)
		question.Name = alias.Target
		if !dns.IsSubDomain(zone, question.Name) {
			step := q.Copy()
			step.Question[0] = question
			return prepend(r.outside(ctx, step), q, chain)
		}
	}
	return refusal(q, dns.RcodeServerFailure)
}

func aliasOf(n node) (*dns.CNAME, bool) {
	if len(n.records) != 1 {
		return nil, false
	}
	alias, ok := n.records[0].(*dns.CNAME)
	return alias, ok
}

// prepend makes the answer for the end of a chain of CNAMEs one for its
// beginning.
func prepend(answer, q *dns.Msg, chain []dns.RR) *dns.Msg {
	answer.Question = []dns.Question{q.Question[0]}
	answer.Answer = append(chain, answer.Answer...)
	return answer
}

// reply answers a question with what stands at its name.
func reply(q *dns.Msg, n node) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	for _, rr := range n.records {
		if t := q.Question[0].Qtype; t == dns.TypeANY || t == rr.Header().Rrtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(m.Answer) > 0 {
		m.Extra = n.extra
		return m
	}
	if !n.exists {
		m.Rcode = dns.RcodeNameError
	}
	// A "no" about an address has no SOA: then nobody remembers it.
	if dns.IsSubDomain(zone, q.Question[0].Name) {
		m.Ns = []dns.RR{soa(zone)}
	}
	return m
}

func refusal(q *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, code)
	m.RecursionAvailable = true
	return m
}

// withEDNS tells who asked by EDNS0 that it was understood (RFC 6891).
func withEDNS(m, q *dns.Msg) *dns.Msg {
	if opt := q.IsEdns0(); opt != nil && m.IsEdns0() == nil {
		m.SetEdns0(payload, opt.Do())
	}
	return m
}

// fit cuts an answer to what its asker takes by UDP, and says so in it.
func fit(m, q *dns.Msg) {
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = max(size, min(int(opt.UDPSize()), payload))
	}
	m.Truncate(size)
}
