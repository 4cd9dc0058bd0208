package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// errStopped ends the group when the server's loop returned because it was
// asked to.
var errStopped = errors.New("stopped")

// Run serves until ctx is done, then stops within a second, even with watches
// open, and closes all that New opened. It returns nil then, and otherwise why
// the server can't go on. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serve(ctx) })
	group.Go(func() error { return s.certs.Run(ctx) })
	group.Go(func() error { return s.watchStore(ctx) })
	group.Go(func() error { return s.start(ctx) })
	err := group.Wait()
	if errors.Is(err, errStopped) {
		err = nil
	}
	return errors.Join(err, s.close(ctx))
}

// serve answers requests until ctx is done, and then for as long as those in
// flight need, but no longer than stopTimeout: one may wait for a webhook.
func (s *Server) serve(ctx context.Context) error {
	prepared := s.generic.PrepareRun()
	done := make(chan error, 1)
	go func() { done <- prepared.RunWithContext(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("serve the API: %w", err)
		}
		return errStopped
	case <-ctx.Done():
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.drained:
		if err := errors.Join(s.listener.Cut(), <-done); err != nil {
			return fmt.Errorf("stop the API server: %w", err)
		}
	case <-timeout.C:
		err := s.listener.Cut()
		klog.FromContext(ctx).V(1).Info("Requests in flight were broken off", "err", err)
	}
	return errStopped
}

// start makes the server ready.
func (s *Server) start(ctx context.Context) error {
	if err := s.services.load(ctx); err != nil {
		return quietIfDone(ctx, err)
	}
	if err := s.writeKubeconfig(); err != nil {
		return err
	}
	if err := keepNamespaces(ctx, s.factory, s.client); err != nil {
		return err
	}
	seed := &seeder{s.all}
	s.kubernetes = &kubernetesService{seed: seed, addr: s.cfg.serviceAddr, port: s.port()}
	if err := s.kubernetes.keep(ctx, s.factory); err != nil {
		return err
	}
	s.factory.StartWithContext(ctx)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return bootstrap(gctx, seed, s.client, s.seedKubernetesService, s.cfg.Provisioner) })
	group.Go(func() error {
		if err := s.factory.WaitForCacheSyncWithContext(gctx).AsError(); err != nil {
			return err
		}
		return s.waitAdmission(gctx)
	})
	if err := group.Wait(); err != nil {
		return quietIfDone(ctx, err)
	}
	s.readiness.set()
	klog.FromContext(ctx).V(1).Info("The API is ready", "url", s.URL())
	return nil
}

// seedKubernetesService leaves a full store as it is: who is to make room needs
// the API, and pods don't start before.
func (s *Server) seedKubernetesService(ctx context.Context) error {
	err := s.kubernetes.ensure(ctx)
	if full := s.store.space(ctx); err != nil && full != nil {
		klog.FromContext(ctx).Error(err, "The Service that pods reach the API by is as it was; it is written when errand starts with room in the store")
		return nil
	}
	return err
}

// admissionPatience bounds waitAdmission: compiling takes milliseconds, but the
// write also asks the user's webhooks, which may be down.
const admissionPatience = time.Second

// waitAdmission returns when the plugins have compiled the policies that there
// are. They tell nobody, but hold up a write until then: one that changes
// nothing, whatever a policy thinks of it.
func (s *Server) waitAdmission(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, admissionPatience)
	defer cancel()
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "errand-start", Namespace: corev1.NamespaceDefault}}
	_, err := s.client.CoreV1().ConfigMaps(probe.Namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	var status apierrors.APIStatus
	if err != nil && !errors.As(err, &status) {
		return fmt.Errorf("wait for admission: %w", err)
	}
	return nil
}

// quietIfDone drops the error of an operation that the stop interrupted.
func quietIfDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) watchStore(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.store.failed():
		return s.store.err()
	}
}

// readiness is a check of /readyz.
type readiness struct {
	once sync.Once
	done chan struct{}
}

func newReadiness() *readiness { return &readiness{done: make(chan struct{})} }

func (r *readiness) set() { r.once.Do(func() { close(r.done) }) }

// Name implements healthz.HealthChecker.
func (r *readiness) Name() string { return "bootstrap" }

// Check implements healthz.HealthChecker.
func (r *readiness) Check(*http.Request) error {
	select {
	case <-r.done:
		return nil
	default:
		return errors.New("the default objects aren't all written, or not all informers are in sync")
	}
}
