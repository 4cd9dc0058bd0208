package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it takes no argument that could be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residence is a process's resident memory in bytes. What isn't anonymous are pages of files: of the program, and of etcd's database, which is mapped.
type residence struct{ all, anonymous int64 }

func resident() (residence, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return residence{}, err
	}
	var r residence
	for line := range strings.Lines(string(b)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); err == nil {
			r.all = kilobytes << 10
		} else if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kilobytes); err == nil {
			r.anonymous = kilobytes << 10
		}
	}
	if r.all == 0 || r.anonymous == 0 {
		return residence{}, errors.New("/proc/self/status doesn't tell VmRSS and RssAnon")
	}
	return r, nil
}

// profiles are the files that profiles are written to, "" for none.
type profiles struct {
	cpu, heap string
	file      *os.File
}

func (p *profiles) begin() (err error) {
	if p.cpu == "" {
		return nil
	}
	if p.file, err = os.Create(p.cpu); err != nil {
		return err
	}
	return pprof.StartCPUProfile(p.file)
}

// end writes the profiles. What is no longer in use is collected before.
func (p *profiles) end() error {
	if p.file != nil {
		pprof.StopCPUProfile()
		if err := p.file.Close(); err != nil {
			return err
		}
	}
	if p.heap == "" {
		return nil
	}
	f, err := os.Create(p.heap)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}
