package clusterdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	// maxConnections bounds the TCP connections that are open at once.
	maxConnections = 128
	// waitForQuestions is how long to wait for one over UDP before waiting again.
	waitForQuestions = time.Hour
	// stopGrace is how long questions that are being answered may take yet when
	// the server stops.
	stopGrace = time.Second
)

// Config is what a Server needs. All fields but Routed and ResolvConf are
// required.
type Config struct {
	Services coreinformers.ServiceInformer
	Pods     coreinformers.PodInformer
	// Sockets are closed when Run returns.
	Sockets *Sockets
	// PodRange holds the addresses of those who may ask: pods, and the host by its
	// own address in it. Others get no answer, lest the neighbours use the host as
	// their resolver.
	PodRange netip.Prefix
	// Routed is the one cluster IP that packets are routed to, that of the Service
	// "kubernetes": the name of a Service that has it stands for it. It is invalid
	// where there is none.
	Routed netip.Addr
	// ResolvConf names the servers for all other names; "" means
	// /etc/resolv.conf.
	ResolvConf string
}

// Server answers pods' questions for names.
type Server struct {
	config   Config
	resolver *resolver
	// synced says whether the index holds all that there was at the start.
	synced []cache.InformerSynced
}

// New makes a Server, which follows the informers from then on. Their owner
// starts them after that.
func New(c Config) (*Server, error) {
	index := newIndex(c.Routed)
	services, err := follow(c.Services.Informer(), index.setService, index.deleteService)
	if err != nil {
		return nil, fmt.Errorf("follow Services: %w", err)
	}
	pods, err := follow(c.Pods.Informer(), index.setPod, index.deletePod)
	if err != nil {
		return nil, fmt.Errorf("follow Pods: %w", err)
	}
	at := c.Sockets.Addr()
	return &Server{
		config: c,
		resolver: &resolver{
			index:   index,
			outside: newForwarder(c.ResolvConf, at).answer,
			server:  at.Addr(),
			pods:    c.PodRange,
		},
		synced: []cache.InformerSynced{services, pods},
	}, nil
}

func follow[T v1.Pod | v1.Service](informer cache.SharedIndexInformer, set, drop func(*T)) (cache.InformerSynced, error) {
	r, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if t, ok := obj.(*T); ok {
				set(t)
			}
		},
		UpdateFunc: func(_, obj any) {
			if t, ok := obj.(*T); ok {
				set(t)
			}
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if t, ok := obj.(*T); ok {
				drop(t)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return r.HasSynced, nil
}

// Run answers until ctx ends, from the moment that all Services and pods are
// known: before, a name that exists would be denied.
func (s *Server) Run(ctx context.Context) error {
	defer func() {
		if err := s.config.Sockets.Close(); err != nil {
			klog.FromContext(ctx).Error(err, "Could not close the name server's sockets")
		}
	}()
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	klog.FromContext(ctx).V(2).Info("Serving names to pods", "address", s.config.Sockets.Addr())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return serve(ctx, &dns.Server{
			PacketConn: s.config.Sockets.udp, UDPSize: payload,
			// For want of one the library wakes every two seconds to wait again. It ends the wait itself when it stops.
			ReadTimeout: waitForQuestions,
			Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				if s.mayAsk(w.RemoteAddr()) {
					s.handle(ctx, w, q, fit)
				}
			}),
		})
	})
	g.Go(func() error {
		return serve(ctx, &dns.Server{
			Listener: netutil.LimitListener(&gate{s.config.Sockets.tcp, s.mayAsk}, maxConnections),
			Handler:  dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.handle(ctx, w, q, nil) }),
		})
	})
	return g.Wait()
}

// serve runs one of miekg's servers until ctx ends.
func serve(ctx context.Context, server *dns.Server) error {
	started, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve names: %w", err)
	case <-started: // before that it can't be stopped
	}
	select {
	case err := <-ended:
		return fmt.Errorf("serve names: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	err := server.ShutdownContext(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // somebody's question is left without an answer
	}
	return errors.Join(err, <-ended)
}

// handle answers one question. cut, if set, makes the answer fit its transport.
func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, q *dns.Msg, cut func(answer, q *dns.Msg)) {
	answer := s.resolver.resolve(ctx, q)
	answer.Compress = true
	if cut != nil {
		cut(answer, q)
	}
	if err := w.WriteMsg(answer); err != nil {
		klog.FromContext(ctx).V(4).Info("An answer could not be sent", "to", w.RemoteAddr(), "err", err)
	}
}

// gate is a listener that closes connections of strangers at once, lest they take
// the places of those who may ask.
type gate struct {
	net.Listener
	mayAsk func(net.Addr) bool
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil || g.mayAsk(c.RemoteAddr()) {
			return c, err
		}
		_ = c.Close() // nothing was said
	}
}

func (s *Server) mayAsk(from net.Addr) bool {
	at, err := netip.ParseAddrPort(from.String())
	return err == nil && s.config.PodRange.Contains(at.Addr().Unmap())
}
