// Command clusterbench measures errand controller and upstream's job controller on the same etcd and kube-apiserver, one after the
// other, while the same loop says of each new pod that it has succeeded: how long a Job takes, and what the controller's process costs; then,
// with the pods of a large Job running, how much memory it holds.
// No other controller and no node runs. It measures, it doesn't judge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "clusterbench:", err)
		os.Exit(1)
	}
}

// contender is a Job controller, started anew for each round of its loads.
type contender struct {
	name  string
	start func(context.Context, *cluster.Cluster) (*cluster.Process, error)
	// slow is one whose requests are limited: it runs the larger Job once only.
	slow bool
}

func (c contender) largeRounds(s settings) int {
	if c.slow {
		return 1
	}
	return s.largeRounds
}

// Upstream's clients may make 20 requests a second unless told otherwise, and --kube-api-qps is all of kube-controller-manager's.
var contenders = []contender{
	{name: "errand controller", start: func(ctx context.Context, c *cluster.Cluster) (*cluster.Process, error) {
		// Upstream's has no lease; this one shouldn't lose its own on a machine that is busy.
		p, err := c.StartController("--managed-by", "kubernetes.io/job-controller", "-v=0", "--leader-elect-lease-duration=120s", "--leader-elect-renew-deadline=100s")
		if err != nil {
			return nil, err
		}
		return p, cluster.AwaitController(ctx, p)
	}},
	{name: "upstream's, no request limit", start: upstream("--kube-api-qps=10000", "--kube-api-burst=10000")},
	{name: "upstream's, as it is (20 requests/s)", start: upstream(), slow: true},
}

func upstream(args ...string) func(context.Context, *cluster.Cluster) (*cluster.Process, error) {
	return func(_ context.Context, c *cluster.Cluster) (*cluster.Process, error) {
		return c.StartManager("job-controller", args...)
	}
}

type settings struct {
	bin, manifests string
	pods           int
	rounds         int
	largeRounds    int
	only           *regexp.Regexp
	live           int
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	var s settings
	flags := flag.NewFlagSet("clusterbench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&s.bin, "bin", "bin", "`folder` of errand-controller, and of cluster/ with upstream's programs")
	flags.StringVar(&s.manifests, "manifests", "deploy/controller", "`folder` of the manifests by which errand controller gets its rights")
	flags.IntVar(&s.pods, "pods", 1000, "pods of the larger Job")
	flags.IntVar(&s.rounds, "rounds", 5, "how often each smaller Job is run")
	only := flags.String("only", "", "`regexp` of the contenders to measure")
	flags.IntVar(&s.largeRounds, "large-rounds", 3, "how often each larger Job is run")
	flags.IntVar(&s.live, "live", 10000, "pods that run while memory is measured; 0 measures none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard())
	if s.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "clu-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.Start(ctx, s.bin, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	return measureAll(ctx, c, s, out, progress)
}

func measureAll(ctx context.Context, c *cluster.Cluster, s settings, out, progress io.Writer) error {
	if err := c.Grant(ctx, s.manifests); err != nil {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.Client.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := measureRates(ctx, c, s, out, progress); err != nil || s.live == 0 {
		return err
	}
	return measureMemory(ctx, c, s, out, progress)
}

// measureRates says how long Jobs take, and what they cost.
func measureRates(ctx context.Context, c *cluster.Cluster, s settings, out, progress io.Writer) (err error) {
	small, large := newTable(out,
		fmt.Sprintf("%d Jobs of 10 pods", s.rounds), "median", "min", "max", "CPU a pod", "RSS idle",
	), newTable(out,
		fmt.Sprintf("%d Jobs of %d pods", s.largeRounds, s.pods), "pods/s: median", "min", "max",
		"CPU a pod: controller", "kube-apiserver", "etcd", "loop", "status writes", "RSS afterwards",
	)
	defer func() { err = errors.Join(err, small.print(), large.print()) }() // whatever there is by then
	bare, err := measureBare(ctx, c, s)
	if err != nil {
		return fmt.Errorf("the requests alone: %w", err)
	}
	large.add(bare...)
	for _, contender := range contenders {
		if !s.only.MatchString(contender.name) {
			continue
		}
		if err := measure(ctx, c, s, contender, progress, small, large); err != nil {
			return fmt.Errorf("%s: %w", contender.name, err)
		}
	}
	return nil
}

// measure runs the loads of one contender, and adds its rows.
func measure(ctx context.Context, c *cluster.Cluster, s settings, who contender, progress io.Writer, small, large *table) (err error) {
	fmt.Fprintf(progress, "%s: %d Jobs of 10 pods, %d of %d\n", who.name, s.rounds, who.largeRounds(s), s.pods)
	p, err := who.start(ctx, c)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, p.Stop(ctx))
	}()
	if _, err := runJob(ctx, c, 1); err != nil { // what the first Job alone costs is the start's
		return err
	}
	idle, err := readUsage(p.PID())
	if err != nil {
		return err
	}
	times, err := repeat(s.rounds, func() (time.Duration, error) { return runJob(ctx, c, 10) })
	if err != nil {
		return err
	}
	after, err := readUsage(p.PID())
	if err != nil {
		return err
	}
	small.add(who.name, short(times[len(times)/2]), short(times[0]), short(times[len(times)-1]), perPod(idle, after, 10*s.rounds), megabytes(after.rss))
	row, err := measureLarge(ctx, c, s, p.PID(), who.largeRounds(s))
	if err != nil {
		return err
	}
	large.add(append([]string{who.name}, row...)...)
	return nil
}

// measureLarge runs the larger Jobs of one contender, whose process that is.
func measureLarge(ctx context.Context, c *cluster.Cluster, s settings, pid, rounds int) ([]string, error) {
	pids := []int{pid, c.API().PID(), c.Store().PID(), os.Getpid()}
	before, err := readAll(pids)
	if err != nil {
		return nil, err
	}
	writes, err := statusWrites(c)
	if err != nil {
		return nil, err
	}
	times, err := repeat(rounds, func() (time.Duration, error) { return runJob(ctx, c, s.pods) })
	if err != nil {
		return nil, err
	}
	after, err := readAll(pids)
	if err != nil {
		return nil, err
	}
	row := rates(times, s.pods)
	for i := range pids {
		row = append(row, perPod(before[i], after[i], rounds*s.pods))
	}
	writesAfter, err := statusWrites(c)
	return append(row, fmt.Sprintf("%d", (writesAfter-writes)/rounds), megabytes(after[0].rss)), err
}

// statusWrites is how often the status of a Job has been written so far.
func statusWrites(c *cluster.Cluster) (int, error) {
	writes, err := c.Writes()
	n := 0
	for _, w := range writes {
		if w.ObjectRef.Resource == "jobs" && w.ObjectRef.Subresource == "status" {
			n++
		}
	}
	return n, err
}

// repeat runs something so many times, and returns how long each took, the shortest first.
func repeat(times int, do func() (time.Duration, error)) ([]time.Duration, error) {
	var took []time.Duration
	for range times {
		t, err := do()
		if err != nil {
			return nil, err
		}
		took = append(took, t)
	}
	slices.Sort(took)
	return took, nil
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
