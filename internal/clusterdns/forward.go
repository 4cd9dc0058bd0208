package clusterdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
	"k8s.io/klog/v2"
)

const (
	hostResolvConf = "/etc/resolv.conf"
	// tryTimeout is how long one server may take, questionTimeout how long all of
	// them together: resolvers in pods wait 5 s before they ask again.
	tryTimeout      = 2 * time.Second
	questionTimeout = 5 * time.Second
	// maxForwarded bounds the questions that are out at once, each of which has a
	// goroutine and a socket.
	maxForwarded = 256
)

// forwarder asks the host's own resolvers. It is safe for concurrent use.
type forwarder struct {
	// path is the host's resolver configuration. It is looked at for each
	// question, which costs one stat, and read where it has changed.
	path string
	// self is this server, which isn't asked even if the file names it.
	self netip.AddrPort
	// slots bounds how many questions are out.
	slots chan struct{}

	mu      sync.Mutex
	read    os.FileInfo // of what servers were read from
	servers []string    // host:port
}

func newForwarder(path string, self netip.AddrPort) *forwarder {
	if path == "" {
		path = hostResolvConf
	}
	return &forwarder{path: path, self: self, slots: make(chan struct{}, maxForwarded)}
}

// answer asks the servers one after the other, as resolvers do. Where none has
// an answer it says SERVFAIL.
func (f *forwarder) answer(ctx context.Context, q *dns.Msg) *dns.Msg {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		klog.FromContext(ctx).V(2).Info("Too many questions for names are out; one is refused", "limit", maxForwarded)
		return refusal(q, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	servers, err := f.upstream(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("A name can't be resolved", "err", err)
		return refusal(q, dns.RcodeServerFailure)
	}
	var last *dns.Msg
	for _, server := range servers {
		a, err := exchange(ctx, q, server)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("A name server of the host's doesn't answer", "server", server, "err", err)
			continue
		}
		if a.Rcode != dns.RcodeServerFailure && a.Rcode != dns.RcodeRefused {
			return handedOn(a, q)
		}
		last = a
	}
	if last != nil {
		return handedOn(last, q)
	}
	return refusal(q, dns.RcodeServerFailure)
}

// exchange asks one server by UDP, and by TCP what didn't fit.
func exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	ask := asked(q)
	a, err := exchangeBy(ctx, "udp", ask, server)
	if err == nil && a.Truncated {
		a, err = exchangeBy(ctx, "tcp", ask, server)
	}
	return a, err
}

// exchangeBy ends with ctx, which miekg's client by itself doesn't.
func exchangeBy(ctx context.Context, network string, q *dns.Msg, server string) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: tryTimeout}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("ask %s by %s: %w", server, network, err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close() // the exchange tells what becomes of it
	})
	a, _, err := client.ExchangeWithConnContext(ctx, q, conn)
	if stop() {
		err = errors.Join(err, conn.Close())
	} else {
		<-closed
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s by %s: %w", server, network, err)
	}
	return a, nil
}

// asked is the question under an ID of its own, which together with the socket's
// port keeps others from answering it. EDNS0 goes from server to server only.
func asked(q *dns.Msg) *dns.Msg {
	m := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: dns.Id(), RecursionDesired: true, CheckingDisabled: q.CheckingDisabled, AuthenticatedData: q.AuthenticatedData},
		Question: q.Question,
	}
	do := false
	if opt := q.IsEdns0(); opt != nil {
		do = opt.Do()
	}
	return m.SetEdns0(payload, do)
}

// handedOn makes a server's answer one to the pod's question.
func handedOn(a, q *dns.Msg) *dns.Msg {
	a.Id, a.Question = q.Id, q.Question
	a.Authoritative = false
	kept := a.Extra[:0]
	for _, rr := range a.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			kept = append(kept, rr)
		}
	}
	a.Extra = kept
	return a
}

// upstream returns the host's servers, without this one.
func (f *forwarder) upstream(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("find the host's name servers: %w", err)
	}
	if f.read == nil || !os.SameFile(now, f.read) || now.ModTime() != f.read.ModTime() || now.Size() != f.read.Size() {
		config, err := dns.ClientConfigFromFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("read the host's name servers: %w", err)
		}
		f.read, f.servers = now, f.others(config)
		if len(f.servers) == 0 {
			klog.FromContext(ctx).Info("Pods can't resolve names outside of "+Domain+": the host's resolver configuration names no server, or only errand's own", "file", f.path)
		}
	}
	if len(f.servers) == 0 {
		return nil, fmt.Errorf("%s names no server", f.path)
	}
	return f.servers, nil
}

func (f *forwarder) others(config *dns.ClientConfig) []string {
	var servers []string
	for _, s := range config.Servers {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Unmap() == f.self.Addr() && config.Port == fmt.Sprint(f.self.Port()) {
			continue
		}
		servers = append(servers, net.JoinHostPort(s, config.Port))
	}
	return servers
}
