package clusterengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	kmetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"errand.dev/errand/internal/jobs"
	"errand.dev/errand/internal/lifecycle"
)

// stopTimeout is how long one component may take to end. All of them together
// take well under 2 s; what takes longer hangs.
const stopTimeout = 5 * time.Second

// Run runs the Jobs of the cluster until ctx ends, while this replica holds the
// lease; then it hands that over and returns nil. It returns an error where it
// can't start, or has lost the lease: the process must end then, and may be
// started again. What the user should know meanwhile it prints to stderr.
func (c *Config) Run(ctx context.Context, stderr io.Writer) error {
	return c.run(ctx, stderr, legacyregistry.Register)
}

func (c *Config) run(ctx context.Context, stderr io.Writer, register func(kmetrics.Registerable) error) error {
	r := &replica{Config: c, stderr: stderr, register: register, began: time.Now(), synced: make(chan struct{}), group: lifecycle.NewGroup(stopTimeout)}
	err := r.start(ctx)
	if err == nil {
		err = r.group.Wait(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil // asked to stop before its turn came
	}
	return errors.Join(err, r.group.Stop())
}

// replica is one run: what its components share.
type replica struct {
	*Config
	stderr   io.Writer
	register func(kmetrics.Registerable) error
	began    time.Time
	group    *lifecycle.Group

	lease   *lease // nil without an election
	objects informers.SharedInformerFactory
	// synced is closed once the caches are filled.
	synced chan struct{}
}

// start starts every component. This is the list of them. The caches are filled
// while the replica watches who has the lease, so that it acts as soon as its
// turn comes; it takes its turn only once they are.
func (r *replica) start(ctx context.Context) error {
	listener, err := listen(ctx, r.options.MetricsBindAddress)
	if err != nil {
		return err
	}
	if err := r.prepareLease(); err != nil {
		return errors.Join(err, closeListener(listener))
	}
	r.startProbes(ctx, listener)
	if err := r.startCaches(ctx); err != nil {
		return err
	}
	if r.lease != nil {
		r.group.Start(ctx, "leader election", r.lease.Run)
	}
	if err := r.greet(ctx); err != nil {
		return err
	}
	if err := r.group.Await(ctx, r.synced); err != nil {
		return err
	}
	r.announce(listener)
	if err := r.awaitTurn(ctx); err != nil {
		return err
	}
	return r.startEngine(ctx)
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// prepareLease makes the lease, with a client of its own: its requests must not
// wait for others, nor others be held back by what holds back the engine's.
func (r *replica) prepareLease() error {
	if !r.options.LeaderElect {
		return nil
	}
	requests, err := r.client(func(cfg *rest.Config) {
		cfg.QPS, cfg.Timeout = -1, r.leaseTimeout()
	})
	if err != nil {
		return err
	}
	watcher, err := r.client(persistent)
	if err != nil {
		return err
	}
	r.lease = newLease(r.options.Lease, r.identity, requests, watcher, r.synced)
	return nil
}

func (r *replica) startProbes(ctx context.Context, listener net.Listener) {
	if listener == nil {
		return
	}
	longest := requestTimeout
	if r.options.Profiling {
		longest = profileTimeout
	}
	r.group.Start(ctx, "metrics and probes", func(ctx context.Context) error { return serve(ctx, listener, r.handler(), longest) })
}

// handler serves what there is at --metrics-bind-address.
func (r *replica) handler() http.Handler {
	mux := probes(r.healthy, r.ready)
	if r.options.Profiling {
		addProfiles(mux)
	}
	return mux
}

// healthy fails for a process that should have ended, for want of the lease,
// and hangs.
func (r *replica) healthy() error {
	if r.lease == nil {
		return nil
	}
	if late := r.lease.fence.overdue(); late > r.options.Lease.Duration {
		return fmt.Errorf("the lease should have been given up %s ago", late.Round(time.Second))
	}
	return nil
}

// ready fails until the caches are filled. A replica that waits for its turn is
// ready.
func (r *replica) ready() error {
	select {
	case <-r.synced:
		return nil
	default:
		return errors.New("the caches of Jobs and pods aren't filled yet")
	}
}

// greetTimeout is how long the API server may take for each answer to greet.
const greetTimeout = 5 * time.Second

// greet tells the user where the API server can't be reached, or refuses what the
// controller begins with. What runs already goes on trying.
func (r *replica) greet(ctx context.Context) error {
	client, err := r.client(func(cfg *rest.Config) { cfg.Timeout = greetTimeout })
	if err != nil {
		return err
	}
	err = client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error()
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(r.stderr, "errand controller tries on, but: reach the API server %s: %v\n", r.rest.Host, err)
		return nil
	}
	for _, err := range r.refusals(ctx, client) {
		fmt.Fprintf(r.stderr, "errand controller tries on, but lacks a right that deploy/controller/rbac.yaml has: %v\n", err)
	}
	return nil
}

// refusals are the API server's answers to what this replica has to read and may not.
func (r *replica) refusals(ctx context.Context, client kubernetes.Interface) []error {
	_, jobsErr := client.BatchV1().Jobs(r.options.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	_, podsErr := client.CoreV1().Pods(r.options.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	errs := []error{jobsErr, podsErr}
	if r.lease != nil {
		_, err := client.CoordinationV1().Leases(r.options.Lease.Namespace).Get(ctx, r.options.Lease.Name, metav1.GetOptions{})
		errs = append(errs, err)
	}
	return slices.DeleteFunc(errs, func(err error) bool { return !apierrors.IsForbidden(err) })
}

func (r *replica) startCaches(ctx context.Context) error {
	client, err := r.client(persistent)
	if err != nil {
		return err
	}
	r.objects = informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(r.options.Namespace), informers.WithTransform(trim(r.options.ManagedBy)))
	r.objects.Batch().V1().Jobs().Informer()
	newPodInformer, err := podInformer(r.reach(persistent), r.options.Namespace)
	if err != nil {
		return err
	}
	r.objects.InformerFor(&corev1.Pod{}, newPodInformer)
	r.group.Start(ctx, "caches", func(ctx context.Context) error {
		defer r.objects.Shutdown()
		r.objects.StartWithContext(ctx)
		if r.objects.WaitForCacheSyncWithContext(ctx).Err == nil {
			close(r.synced)
		}
		<-ctx.Done()
		return nil
	})
	return nil
}

// awaitTurn returns once this replica may act.
func (r *replica) awaitTurn(ctx context.Context) error {
	if r.lease == nil {
		return nil
	}
	if holder := r.lease.other(); holder != "" {
		fmt.Fprintf(r.stderr, "errand controller waits for the lease %s, which %s has\n", r.lease.Describe(), holder)
	}
	if err := r.group.Await(ctx, r.lease.acquired); err != nil {
		return err
	}
	fmt.Fprintf(r.stderr, "errand controller has the lease %s and acts\n", r.lease.Describe())
	return nil
}

// startEngine starts the Job engine, by a client that the fence can hold back.
func (r *replica) startEngine(ctx context.Context) error {
	client, err := r.client(func(cfg *rest.Config) {
		if r.lease != nil {
			cfg.Wrap(r.lease.fence.guard)
		}
	})
	if err != nil {
		return err
	}
	engine, err := jobs.New(jobs.Config{
		Client:               client,
		Jobs:                 r.objects.Batch().V1().Jobs(),
		Pods:                 r.objects.Core().V1().Pods(),
		ManagedBy:            r.options.ManagedBy,
		PodFailureBackoff:    r.options.PodFailureBackoff,
		MaxPodFailureBackoff: r.options.MaxPodFailureBackoff,
		Workers:              r.options.Workers,
		RegisterMetrics:      r.register,
	})
	if err != nil {
		return fmt.Errorf("job engine: %w", err)
	}
	r.group.Start(ctx, "job engine", engine.Run)
	return nil
}

// announce tells whoever waits that the replica is ready.
func (r *replica) announce(listener net.Listener) {
	of := "Jobs with spec.managedBy " + r.options.ManagedBy
	if r.options.managesAll() {
		of += " or none"
	}
	if r.options.Namespace != "" {
		of += " in " + r.options.Namespace
	}
	fmt.Fprintf(r.stderr, "errand controller is ready after %d ms: %s, on %s\n", time.Since(r.began).Milliseconds(), of, r.rest.Host)
	if listener != nil {
		fmt.Fprintf(r.stderr, "  metrics at http://%s/metrics\n", listener.Addr())
	}
}
