// Command clusterbench measures errand controller and upstream's job controller on the same etcd and kube-apiserver, one after the
// other, while the same loop says of each new pod that it has succeeded: how long a Job takes, and what the controller's process costs.
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
}

// Upstream's clients may make 20 requests a second unless told otherwise, and --kube-api-qps is all of kube-controller-manager's.
var contenders = []contender{
	{"errand controller", func(ctx context.Context, c *cluster.Cluster) (*cluster.Process, error) {
		p, err := c.StartController("--managed-by", "kubernetes.io/job-controller")
		if err != nil {
			return nil, err
		}
		return p, cluster.AwaitController(ctx, p)
	}},
	{"upstream's, no request limit", upstream("--kube-api-qps=10000", "--kube-api-burst=10000")},
	{"upstream's, as it is (20 requests/s)", upstream()},
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
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	var s settings
	flags := flag.NewFlagSet("clusterbench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&s.bin, "bin", "bin", "`folder` of errand, and of cluster/ with upstream's programs")
	flags.StringVar(&s.manifests, "manifests", "deploy/controller", "`folder` of the manifests by which errand controller gets its rights")
	flags.IntVar(&s.pods, "pods", 1000, "pods of the larger Job")
	flags.IntVar(&s.rounds, "rounds", 5, "how often each smaller Job is run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard())
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
	fmt.Fprintf(out, "| controller | %d Jobs of 10 pods: median, min, max | CPU a pod | Job of %d pods | pods/s | CPU a pod | RSS idle | RSS afterwards |\n", s.rounds, s.pods)
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	for _, contender := range contenders {
		row, err := measure(ctx, c, s, contender, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", contender.name, err)
		}
		fmt.Fprintln(out, row)
	}
	return nil
}

// measure runs the loads of one contender, and returns its row.
func measure(ctx context.Context, c *cluster.Cluster, s settings, who contender, progress io.Writer) (row string, err error) {
	fmt.Fprintf(progress, "%s: %d Jobs of 10 pods, one of %d\n", who.name, s.rounds, s.pods)
	p, err := who.start(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, p.Stop(ctx))
	}()
	if _, err := runJob(ctx, c, 1); err != nil { // what the first Job alone costs is the start's
		return "", err
	}
	idle, err := readUsage(p.PID())
	if err != nil {
		return "", err
	}
	var times []time.Duration
	for range s.rounds {
		took, err := runJob(ctx, c, 10)
		if err != nil {
			return "", err
		}
		times = append(times, took)
	}
	small, err := readUsage(p.PID())
	if err != nil {
		return "", err
	}
	large, err := runJob(ctx, c, s.pods)
	if err != nil {
		return "", err
	}
	after, err := readUsage(p.PID())
	if err != nil {
		return "", err
	}
	slices.Sort(times)
	return fmt.Sprintf("| %s | %s, %s, %s | %d µs | %s | %.0f | %d µs | %d MB | %d MB |", who.name,
		short(times[len(times)/2]), short(times[0]), short(times[len(times)-1]), (small.cpu-idle.cpu).Microseconds()/int64(10*s.rounds),
		short(large), float64(s.pods)/large.Seconds(), (after.cpu-small.cpu).Microseconds()/int64(s.pods), idle.rss>>20, after.rss>>20), nil
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
