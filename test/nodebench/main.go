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
	args      []string
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
	// apart: this machine's cgroups are such as the runtime refuses, and it is
	// measured by a program of its own that has others.
	apart bool
}

// goals are what a launcher must reach, in words.
type goals struct{ rate, cpu string }

var (
	fast = goals{rate: "90 pods/s", cpu: "22 ms"}
	slow = goals{rate: "40 pods/s", cpu: "50 ms"}
)

// options are the flags.
type options struct {
	bin, runc, crun, dir, cidr string
	only                       *regexp.Regexp
	launcher                   string
	noUnified                  bool
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out, args: args}
	o, err := b.parse(args)
	if err != nil {
		return err
	}
	if o.noUnified {
		if err := benchrig.HideUnified(); err != nil {
			return err
		}
	}
	if err := b.find(o); err != nil {
		return err
	}
	common := []string{"--max-pods", "1020"} // a bridge has 1,024 ports
	if o.cidr != "" {
		common = append(common, "--pod-cidr", o.cidr)
	}
	if b.Rig, err = benchrig.New(o.bin, o.dir, common...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if !o.noUnified {
		if err := b.introduce(); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		name string
		take func(context.Context) error
	}{{"launchers", b.launch}, {"sleepers", b.sleep}, {"restart", b.restart}} {
		if !o.only.MatchString(m.name) {
			continue
		}
		if err := m.take(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (b *bench) parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("nodebench", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "`folder` of errand, errand-shim and kubectl")
	flags.StringVar(&o.runc, "runc", "bin/runc", "`path` of a runc")
	flags.StringVar(&o.crun, "crun", "bin/debian13/crun", "`path` of a crun; empty to do without")
	flags.StringVar(&o.dir, "dir", "/tmp", "`folder` below which errands have their data; /dev/shm shows what the disk's part is")
	flags.StringVar(&o.cidr, "pod-cidr", "", "`range` of the pods, if not one of errand's own")
	only := flags.String("only", "", "do only the measurements (launchers, sleepers, restart) whose name matches the `regexp`")
	flags.StringVar(&o.launcher, "launcher", "", "of the launchers measure only the one of that `name`: native, runc or crun")
	flags.BoolVar(&o.noUnified, "no-unified", false, "take cgroups v2 out of this program's own mount namespace first: crun refuses hybrids that have it")
	flags.IntVar(&b.runs, "runs", 3, "how often to run the Job of many, by each launcher, and to kill errand")
	flags.IntVar(&b.pods, "pods", 500, "pods of the Job of many")
	flags.IntVar(&b.sleepers, "sleepers", 1000, "pods that sleep while errand is looked at")
	flags.IntVar(&b.running, "running", 500, "pods that run while errand is killed")
	flags.DurationVar(&b.rest, "rest", time.Minute, "how long to look at them")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if b.runs < 1 || b.pods < 1 || b.sleepers < 1 || b.running <= enders {
		return o, fmt.Errorf("-runs, -pods and -sleepers must be at least 1, and -running more than %d", enders)
	}
	return o, nil
}

// find finds the launchers' programs.
func (b *bench) find(o options) error {
	all := []launcher{{name: "native", goals: fast}, {name: "runc", runtime: o.runc, goals: slow}}
	if o.crun != "" {
		all = append(all, launcher{name: "crun", runtime: o.crun, goals: fast, apart: benchrig.Hybrid() && !o.noUnified})
	}
	for _, l := range all {
		if o.launcher != "" && o.launcher != l.name {
			continue
		}
		if l.runtime != "" {
			path, err := benchrig.FindRuntime(l.runtime)
			if err != nil {
				return err
			}
			l.runtime = path
		}
		b.launchers = append(b.launchers, l)
	}
	if len(b.launchers) == 0 {
		return fmt.Errorf("-launcher %q: want native, runc or crun", o.launcher)
	}
	return nil
}

// introduce says what is measured where, and begins the table.
func (b *bench) introduce() error {
	fmt.Fprintf(b.out, "%s, %s", benchrig.Machine(), b.ErrandVersion())
	for _, l := range b.launchers {
		if l.runtime != "" {
			fmt.Fprintf(b.out, ", %s", benchrig.FirstLine(l.runtime, "--version"))
		}
	}
	cost, err := benchrig.FileCost(b.Dir())
	if err != nil {
		return err
	}
	fmt.Fprint(b.out, "\n\n")
	benchrig.Header(b.out)
	b.row("a file made in the data directory's file system, CPU", "", "µs", benchrig.Figures{float64(cost.Nanoseconds()) / 1000})
	return nil
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
