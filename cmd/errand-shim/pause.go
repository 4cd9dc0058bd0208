package main

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// pause is the first process of a PID namespace that a pod's containers share, which ends with it: it reaps those that lose
// their parents, and ends when it is killed.
func pause() error {
	if err := heedSignals(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	for {
		select {
		case <-ends:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
					break
				}
			}
		case <-stop:
			return nil
		}
	}
}
