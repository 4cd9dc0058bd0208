// Command errand-shim is the resident parent of all containers of one errand. errand starts it; nobody else needs to.
//
//	errand-shim --dir DIR [--cgroup PATH] [--detach]
//	errand-shim pause
//
// The second form holds a PID namespace that a pod's containers share, and does nothing else.
//
// It exits with 0 once it is drained, 1 on an error, 2 if it was called wrongly and 3 if another one serves DIR. SIGTERM
// drains it: it stops once no container runs. For what it does see package shim.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"errand.dev/errand/internal/oci/shim"
	"errand.dev/errand/internal/oci/shimapi"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == shimapi.Pause {
		return report(stderr, pause())
	}
	flags := flag.NewFlagSet("errand-shim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "`directory` for the socket and the containers' state")
	cgroup := flags.String("cgroup", "", "cgroup `path` to move to")
	detach := flags.Bool("detach", false, "go on in the background; return once the socket serves")
	showVersion := flags.Bool("version", false, "print the version")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	switch {
	case *showVersion:
		fmt.Fprintln(stdout, version)
		return 0
	case *dir == "" || flags.NArg() > 0:
		fmt.Fprintln(stderr, "usage: errand-shim --dir DIR [--cgroup PATH] [--detach]")
		return 2
	case *detach:
		return report(stderr, background(*dir, *cgroup))
	}
	openFiles, _ := strconv.ParseUint(os.Getenv(openFilesEnv), 10, 64)
	err := serve(shim.Config{
		Dir: *dir, Cgroup: *cgroup, Build: version, OpenFiles: openFiles,
		Log: log.New(stderr, "", log.LstdFlags|log.LUTC|log.Lmsgprefix),
	})
	if err != nil {
		tell(err.Error())
	}
	return report(stderr, err)
}

func report(stderr io.Writer, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, shim.ErrRunning):
		fmt.Fprintln(stderr, "errand-shim:", err)
		return shimapi.ExitRunning
	}
	fmt.Fprintln(stderr, "errand-shim:", err)
	return 1
}

// nameThreads gives all threads, and with them those to come, the program's name: what it was executed by has none that says
// anything.
func nameThreads() {
	threads, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, comm := range threads {
		_ = os.WriteFile(comm, []byte("errand-shim"), 0)
	}
}

func serve(cfg shim.Config) error {
	if err := heedSignals(); err != nil {
		return err
	}
	nameThreads()
	// The heap is a few hundred KB: trade some CPU time for keeping it there. Two threads of Go code are plenty.
	debug.SetGCPercent(25)
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := shim.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx, tellReady)
}
