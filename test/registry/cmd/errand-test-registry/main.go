// Command errand-test-registry serves docker.io/library/busybox from loopback, for demonstrations on machines without a network. It
// prints the path of a registries.conf that leads docker.io to it, and serves until SIGTERM or Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"errand.dev/errand/test/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "errand-test-registry:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("errand-test-registry", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "loopback `address` to serve on; port 0 means any free one")
	dir := flags.String("dir", "", "`directory` for blobs and registries.conf; default: a temporary one, removed at the end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "errand-test-registry-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(*dir) }()
	}
	srv, conf, err := registry.StartBusybox(*listen, *dir)
	if err != nil {
		return err
	}
	defer func() { _ = srv.Close() }()
	fmt.Fprintf(stderr, "serving docker.io/library/busybox:latest on %s\n", srv.Addr())
	fmt.Fprintln(stdout, conf)
	<-ctx.Done()
	return nil
}
