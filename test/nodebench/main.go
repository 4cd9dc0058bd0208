// Command nodebench measures what the node does for pods, and prints what
// docs/performance.md records under "The node": how long a pod, a command in one
// and a line of its log take, how many pods a second go through by each way of
// starting containers, what a thousand pods that sleep hold, and how soon an
// errand that was killed knows five hundred again. It needs root, the binaries of
// `make build kubectl`, and the crun of scripts/crun.sh.
//
// It measures, it doesn't judge: the goals are printed beside the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"errand.dev/errand/test/benchrig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nodebench:", err)
		os.Exit(1)
	}
}

// bench is one run of all measurements.
type bench struct {
	*benchrig.Rig
	out       io.Writer
	runs      int
	pods      int
	sleepers  int
	running   int
	rest      time.Duration
	launchers []launcher
}

// launcher is a way of starting containers.
type launcher struct {
	name string
	// runtime is the path of the OCI runtime that starts them, empty for errand
	// itself.
	runtime string
	goals   goals
}

// goals are what a launcher must reach, in words.
type goals struct{ rate, cpu string }

var (
	fast = goals{rate: "90 pods/s", cpu: "22 ms"}
	slow = goals{rate: "40 pods/s", cpu: "50 ms"}
)

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	flags := flag.NewFlagSet("nodebench", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`folder` of errand, errand-shim and kubectl")
	runc := flags.String("runc", "bin/runc", "`path` of a runc")
	crun := flags.String("crun", "bin/crun", "`path` of a crun; empty to do without")
	cidr := flags.String("pod-cidr", "", "`range` of the pods, if not one of errand's own")
	only := flags.String("only", "", "do only the measurements whose name matches the `regexp`")
	flags.IntVar(&b.runs, "runs", 3, "how often to run the Job of many, by each launcher, and to kill errand")
	flags.IntVar(&b.pods, "pods", 500, "pods of the Job of many")
	flags.IntVar(&b.sleepers, "sleepers", 1000, "pods that sleep while errand is looked at")
	flags.IntVar(&b.running, "running", 500, "pods that run while errand is killed")
	flags.DurationVar(&b.rest, "rest", time.Minute, "how long to look at them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if err := b.find(*runc, *crun); err != nil {
		return err
	}
	common := []string{"--max-pods", "1020"} // a bridge has 1,024 ports
	if *cidr != "" {
		common = append(common, "--pod-cidr", *cidr)
	}
	if b.Rig, err = benchrig.New(*bin, common...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	b.introduce()
	for _, m := range []struct {
		name string
		take func(context.Context) error
	}{{"launchers", b.launch}, {"sleepers", b.sleep}, {"restart", b.restart}} {
		if !wanted.MatchString(m.name) {
			continue
		}
		if err := m.take(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// find finds the launchers' programs.
func (b *bench) find(runc, crun string) error {
	path, err := benchrig.FindRuntime(runc)
	if err != nil {
		return err
	}
	b.launchers = []launcher{{name: "native", goals: fast}, {name: "runc", runtime: path, goals: slow}}
	if crun == "" {
		return nil
	}
	if path, err = benchrig.FindRuntime(crun); err != nil {
		return err
	}
	b.launchers = append(b.launchers, launcher{name: "crun", runtime: path, goals: fast})
	return nil
}

// introduce says what is measured where, and begins the table.
func (b *bench) introduce() {
	fmt.Fprintf(b.out, "%s, %s", benchrig.Machine(), b.ErrandVersion())
	for _, l := range b.launchers {
		if l.runtime != "" {
			fmt.Fprintf(b.out, ", %s", benchrig.FirstLine(l.runtime, "--version"))
		}
	}
	fmt.Fprint(b.out, "\n\n")
	benchrig.Header(b.out)
}

// flags are those by which errand starts containers that way.
func (l launcher) flags() []string {
	if l.runtime == "" {
		return nil
	}
	return []string{"--native-launcher=false", "--runtime", l.name + "=" + l.runtime, "--default-runtime", l.name}
}

func (b *bench) row(name, goal, unit string, figures benchrig.Figures) {
	benchrig.Row(b.out, name, goal, unit, figures)
}
